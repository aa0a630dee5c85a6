//! Weights on the device: matrices in their own blocks, vectors as f32.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use chaski_gguf::{Format, Gguf};

use super::device::Device;
use super::layout::{Layout, MAX_PLANES};
use super::memory::GpuBuffer;
use crate::backend::{self, BackendError, Result};
use crate::tensor::Shape;

/// Bytes of a weight that are brought into planes and handed to the queue at once.
const CHUNK: usize = 8 << 20;
/// The queue is waited for after so many bytes, so that what it keeps for the copies stays small.
const WAIT_EVERY: usize = 64 << 20;
/// Values of a chunk of vectors (norms, biases): a few hundred vectors share a buffer, so that a kernel needs one binding.
const VECTORS: usize = 1 << 20;

/// A part of a matrix that lies in one buffer: as many whole rows as a kernel can reach there.
pub(crate) struct Shard {
    pub(crate) buffer: GpuBuffer,
    /// The first row, counted over all matrices of the tensor.
    pub(crate) first: usize,
    /// Rows.
    pub(crate) rows: usize,
    /// Where its planes begin, in words.
    pub(crate) planes: [u32; MAX_PLANES],
}

/// A weight of one row is a vector, everything else a matrix.
pub(crate) enum GpuWeight {
    Matrix(Matrix),
    Vector(Vector),
}

/// A matrix, or one for each expert, in the blocks of its format.
pub(crate) struct Matrix {
    pub(crate) format: Format,
    pub(crate) shape: Shape,
    pub(crate) shards: Vec<Shard>,
}

/// A row of f32 in a buffer that it shares with others.
#[derive(Clone)]
pub(crate) struct Vector {
    pub(crate) buffer: Arc<GpuBuffer>,
    /// Where it begins, in words.
    pub(crate) at: u32,
    /// The same values for the host.
    pub(crate) values: Arc<[f32]>,
}

impl backend::Weight for GpuWeight {}

/// The GPU's view of a weight.
pub(crate) fn gpu_weight(weight: &Arc<dyn backend::Weight>) -> Result<&GpuWeight, String> {
    let any: &dyn Any = &**weight;
    any.downcast_ref::<GpuWeight>().ok_or_else(|| "is another backend's weight".into())
}

/// Vectors are put side by side; a chunk lives as long as any of its vectors.
#[derive(Default)]
pub(crate) struct VectorPool(Mutex<Option<(Arc<GpuBuffer>, usize)>>);

impl VectorPool {
    fn add(&self, device: &Device, values: &[f32], what: &str) -> Result<Vector> {
        let mut chunk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whole vectors of four floats, so that kernels may read them so.
        let words = values.len().next_multiple_of(4);
        let (buffer, at) = match chunk.take() {
            Some((buffer, at)) if (at + words) * 4 <= backend::Buffer::bytes(&*buffer) => (buffer, at),
            _ => (Arc::new(GpuBuffer::new(device, words.max(VECTORS) * 4, what)?), 0),
        };
        device.write(&buffer.buffer, at * 4, bytemuck::cast_slice(values))?;
        *chunk = Some((buffer.clone(), at + words));
        Ok(Vector { buffer, at: at as u32, values: values.into() })
    }
}

/// Copy a tensor of the file to the device.
pub(crate) fn load(
    device: &Device,
    vectors: &VectorPool,
    file: &Arc<Gguf>,
    index: usize,
) -> Result<GpuWeight> {
    let no = |name: &str, why: &str| BackendError::Weight { name: name.into(), why: why.into() };
    let info =
        file.tensors().get(index).ok_or_else(|| no(&format!("number {index}"), "is not in the file"))?;
    let name = info.name.as_str();
    let tensor = file.tensor(name).ok_or_else(|| no(name, "the file ends before it"))?;
    let dims: Vec<usize> = info.shape.iter().map(|d| *d as usize).collect();
    let shape = Shape::new(&dims);
    let format = info.format;
    if shape.rows() == 1 {
        let mut values = vec![0.0; shape.len()];
        (format.info().decode)(tensor.bytes, &mut values);
        return Ok(GpuWeight::Vector(vectors.add(device, &values, "vectors")?));
    }
    let layout = Layout::of(format).ok_or_else(|| no(name, &format!("no shader decodes {format}")))?;
    let blocks_per_row = shape.row() / format.info().block_len;
    let rows_at_once = rows_of_shard(&layout, blocks_per_row, shape.rows(), device.max_binding())
        .ok_or_else(|| no(name, "one row is more than the device binds at once"))?;
    // Everything is had before the first byte is copied.
    let mut shards = Vec::new();
    let mut first = 0;
    while first < shape.rows() {
        let rows = rows_at_once.min(shape.rows() - first);
        let (at, bytes) = layout.offsets(rows * blocks_per_row);
        let buffer = GpuBuffer::new(device, bytes, name)?;
        shards.push(Shard { buffer, first, rows, planes: at.map(|at| (at / 4) as u32) });
        first += rows;
    }
    let row_bytes = blocks_per_row * layout.block_bytes;
    for shard in &shards {
        let bytes = &tensor.bytes[shard.first * row_bytes..(shard.first + shard.rows) * row_bytes];
        upload(device, shard, &layout, bytes)?;
    }
    Ok(GpuWeight::Matrix(Matrix { format, shape, shards }))
}

/// As many rows as fit into `most` bytes; none if not one does.
fn rows_of_shard(layout: &Layout, blocks_per_row: usize, rows: usize, most: usize) -> Option<usize> {
    let fits = |rows: usize| layout.offsets(rows.saturating_mul(blocks_per_row)).1 <= most;
    if fits(rows) {
        return Some(rows);
    }
    let padding = layout.planes.len() * super::layout::PLANE_ALIGN;
    let at_once = most.saturating_sub(padding) / (blocks_per_row * layout.block_bytes).max(1);
    // Shards begin at rows that many kernels take together.
    let at_once = if at_once >= 64 { at_once / 64 * 64 } else { at_once };
    (at_once > 0 && fits(at_once)).then_some(at_once)
}

fn upload(device: &Device, shard: &Shard, layout: &Layout, bytes: &[u8]) -> Result<()> {
    // A whole number of words of every plane, however odd a block.
    let step = (CHUNK / layout.block_bytes).next_multiple_of(8) * layout.block_bytes;
    let mut packed = Vec::new();
    let mut waiting = 0;
    for (i, blocks) in bytes.chunks(step).enumerate() {
        for plane in 0..layout.planes.len() {
            layout.pack(plane, blocks, &mut packed);
            packed.resize(packed.len().next_multiple_of(4), 0);
            let at = shard.planes[plane] as usize * 4
                + i * (step / layout.block_bytes) * layout.plane_bytes(plane);
            device.write(&shard.buffer.buffer, at, &packed)?;
        }
        waiting += blocks.len();
        if waiting >= WAIT_EVERY {
            device.queue.submit([]);
            device.wait()?;
            waiting = 0;
        }
    }
    device.queue.submit([]);
    device.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_hold_whole_rows_and_fit() {
        let layout = Layout::of(Format::F32).unwrap();
        assert_eq!(rows_of_shard(&layout, 100, 1000, 400_000), Some(1000), "what fits is not divided");
        let rows = rows_of_shard(&layout, 100, 1000, 200_000).unwrap();
        assert_eq!(rows, 448);
        assert!(layout.offsets(rows * 100).1 <= 200_000);
        assert_eq!(rows_of_shard(&layout, 100, 1000, 4_100), Some(10));
        assert_eq!(rows_of_shard(&layout, 100, 1000, 300), None);
    }
}
