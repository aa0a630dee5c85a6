//! Two files of one model held against each other, tensor by tensor: what any quantizer did, ours or another.

use std::ops::ControlFlow;

use chaski_gguf::{Format, Gguf, TensorRef};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::QuantError;
use super::measures::Sums;

/// Values that a thread decodes at once.
const CHUNK: usize = 1 << 14;
/// Values after which the watcher is asked.
const SLAB: usize = 1 << 22;

/// What happened to a tensor.
#[derive(Debug, Clone)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// Its format in the one file and in the other.
    pub formats: (Format, Format),
    /// Values of the tensor.
    pub values: u64,
    /// The sums from which every measure follows.
    pub sums: Sums,
}

/// The difference of every tensor that both files have, in the order of `before`. `watch` is told the values that are done and may break it
/// off; the result is then none. Memory is bounded.
///
/// # Errors
/// A tensor has another shape in `after`: it is of another model.
pub fn differences(
    before: &Gguf,
    after: &Gguf,
    threads: usize,
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<Vec<Difference>>, QuantError> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| QuantError::Threads { source: Box::new(error) })?;
    let (mut found, mut done) = (Vec::new(), 0);
    for info in before.tensors() {
        if matches!(info.format, Format::I8 | Format::I16 | Format::I32 | Format::I64) {
            continue;
        }
        let x = before.require_tensor(&info.name)?;
        let Some(y) = after.tensor(&info.name) else { continue };
        if y.info.shape != info.shape {
            let why = format!("its shape is {:?}, not {:?} as in the source", y.info.shape, info.shape);
            return Err(QuantError::OtherModel { tensor: info.name.clone(), why });
        }
        let Some(sums) = of_tensor(&x, &y, &pool, &mut |values| watch(done + values)) else {
            return Ok(None);
        };
        let values = info.n_values();
        done += values;
        found.push(Difference {
            name: info.name.clone(),
            formats: (info.format, y.info.format),
            values,
            sums,
        });
    }
    Ok(Some(found))
}

/// None where the watcher broke it off.
fn of_tensor(
    x: &TensorRef<'_>,
    y: &TensorRef<'_>,
    pool: &ThreadPool,
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Option<Sums> {
    let row = (x.info.shape[0] as usize).max(1);
    let mut sums = Sums::new(row);
    let values = |n: usize| (n / row).max(1) * row;
    let bytes = |format: Format, values: usize| values / format.info().block_len * format.info().block_bytes;
    let (from, to) = (x.info.format, y.info.format);
    let slabs =
        x.bytes.chunks(bytes(from, values(SLAB)).max(1)).zip(y.bytes.chunks(bytes(to, values(SLAB)).max(1)));
    for (i, (x, y)) in slabs.enumerate() {
        if watch((i * values(SLAB)) as u64).is_break() {
            return None;
        }
        let chunk = |format: Format| bytes(format, values(CHUNK)).max(1);
        let part = |buffers: &mut (Vec<f32>, Vec<f32>), (x, y): (&[u8], &[u8])| {
            let n = x.len() / from.info().block_bytes * from.info().block_len;
            buffers.0.resize(n, 0.0);
            buffers.1.resize(n, 0.0);
            (from.info().decode)(x, &mut buffers.0);
            (to.info().decode)(y, &mut buffers.1);
            let mut sums = Sums::new(row);
            sums.add_rows(&buffers.0, &buffers.1, to);
            sums
        };
        let parts: Vec<Sums> = pool.install(|| {
            let chunks = x.par_chunks(chunk(from)).zip(y.par_chunks(chunk(to)));
            chunks.map_init(<(Vec<f32>, Vec<f32>)>::default, part).collect()
        });
        for part in &parts {
            sums.add(part);
        }
    }
    Some(sums)
}
