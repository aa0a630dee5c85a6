//! Weights on the device: matrices in their own blocks, vectors as f32.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use chaski_gguf::{Format, Gguf, TensorRef};

use super::device::Device;
use super::layout::Layout;
use super::memory::GpuBuffer;
use crate::backend::{self, BackendError, Result};
use crate::tensor::Shape;

/// Bytes of a weight that are brought into order and handed to the queue at once.
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
            _ => {
                let least = VECTORS.min(device.max_binding() / 4);
                (Arc::new(GpuBuffer::new(device, words.max(least) * 4, what)?), 0)
            }
        };
        device.write(&buffer.buffer, at * 4, bytemuck::cast_slice(values))?;
        *chunk = Some((buffer.clone(), at + words));
        Ok(Vector { buffer, at: at as u32, values: values.into() })
    }
}

fn error(name: &str, why: impl Into<String>) -> BackendError {
    BackendError::Weight { name: name.into(), why: why.into() }
}

/// A tensor of the file with its shape.
fn tensor(file: &Gguf, index: usize) -> Result<(TensorRef<'_>, Shape)> {
    let info = file.tensors().get(index);
    let info = info.ok_or_else(|| error(&format!("number {index}"), "is not in the file"))?;
    let tensor = file.tensor(&info.name).ok_or_else(|| error(&info.name, "the file ends before it"))?;
    Ok((tensor, Shape(info.shape.map(|d| d as usize))))
}

/// Memory for a tensor of the file. A vector is copied at once: it is small.
pub(crate) fn alloc(device: &Device, vectors: &VectorPool, file: &Gguf, index: usize) -> Result<GpuWeight> {
    let (tensor, shape) = tensor(file, index)?;
    let (name, format) = (tensor.info.name.as_str(), tensor.info.format);
    if shape.rows() == 1 {
        let mut values = vec![0.0; shape.len()];
        (format.info().decode)(tensor.bytes, &mut values);
        return Ok(GpuWeight::Vector(vectors.add(device, &values, "vectors")?));
    }
    let layout = Layout::of(format, shape.row());
    let layout =
        layout.ok_or_else(|| error(name, format!("no shader reads rows of {} {format}", shape.row())))?;
    let ranges = layout.shards(shape.rows(), unit(shape), device.max_binding());
    let ranges =
        ranges.ok_or_else(|| error(name, "one of its rows is more than the device binds at once"))?;
    let mut shards = Vec::new();
    for range in ranges {
        let bytes = layout.bytes(range.len()).ok_or_else(|| error(name, "is too large"))?;
        let buffer = GpuBuffer::new(device, bytes, name)?;
        shards.push(Shard { buffer, first: range.start, rows: range.len() });
    }
    Ok(GpuWeight::Matrix(Matrix { format, shape, shards }))
}

/// Copy the bytes of a tensor to the memory that [`alloc`] gave for it.
pub(crate) fn fill(device: &Device, file: &Gguf, index: usize, weight: &GpuWeight) -> Result<()> {
    let GpuWeight::Matrix(matrix) = weight else { return Ok(()) };
    let (tensor, _) = tensor(file, index)?;
    let name = tensor.info.name.as_str();
    let layout = Layout::of(matrix.format, matrix.shape.row()).ok_or_else(|| error(name, "has no layout"))?;
    let row_bytes = layout.file_row_bytes();
    for shard in &matrix.shards {
        let bytes = tensor.bytes.get(shard.first * row_bytes..(shard.first + shard.rows) * row_bytes);
        let bytes = bytes.ok_or_else(|| error(name, "the file ends before it"))?;
        let mut waiting = 0;
        layout.upload(bytes, CHUNK, |at, piece| {
            device.write(&shard.buffer.buffer, at, piece)?;
            waiting += piece.len();
            if waiting < WAIT_EVERY {
                return Ok(());
            }
            waiting = 0;
            device.queue.submit([]);
            device.wait()
        })?;
        device.queue.submit([]);
    }
    Ok(())
}

/// Rows that stay together when a weight is divided: those of an expert.
pub(crate) fn unit(shape: Shape) -> usize {
    if shape.0[2] > 1 { shape.0[1] } else { 1 }
}

/// Vectors that one kernel reads, in one buffer: their own where that is the same for all, else a new one. Gives where each
/// begins, in words.
pub(crate) fn together(device: &Device, vectors: &[&Vector]) -> Result<(Arc<GpuBuffer>, Vec<usize>)> {
    if let Some((first, rest)) = vectors.split_first()
        && rest.iter().all(|v| Arc::ptr_eq(&v.buffer, &first.buffer))
    {
        return Ok((first.buffer.clone(), vectors.iter().map(|v| v.at as usize).collect()));
    }
    let mut values: Vec<f32> = Vec::new();
    let mut places = Vec::new();
    for vector in vectors {
        places.push(values.len());
        values.extend_from_slice(&vector.values);
        values.resize(values.len().next_multiple_of(4), 0.0);
    }
    let buffer = GpuBuffer::new(device, values.len() * 4, "vectors")?;
    device.write(&buffer.buffer, 0, bytemuck::cast_slice(&values))?;
    Ok((Arc::new(buffer), places))
}
