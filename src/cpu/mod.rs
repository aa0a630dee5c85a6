//! The CPU backend: runs every op, and is the oracle for the others.

pub mod act;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod hadamard;
#[cfg(test)]
mod harness;
pub mod isa;
pub mod kernel;
mod math;
mod memory;
mod ops;
mod plan;
mod pool;
pub mod probe;
mod profile;
mod reference;
pub mod scratch;
#[cfg(target_arch = "x86_64")]
mod stream;
mod table;
pub mod vector;

use std::sync::Arc;

use chaski_gguf::{Format, Gguf};

use crate::backend::{Backend, BackendError, Buffer, Plan, Result, Segment, Weight, Why};
use crate::graph::{Graph, NodeId};
use crate::tensor::Act;
use isa::Isa;
use kernel::{Kernel, Wide};
use memory::{CpuBuffer, CpuWeight};
use pool::Team;

/// How the CPU is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads for single tokens.
    pub threads: usize,
    /// Threads for prompts.
    pub threads_batch: usize,
    /// The instruction set.
    pub isa: Isa,
    /// Activations are not rounded to 8 bits. Queries still meet quantized K rows as 16-bit integers, where the machine has
    /// integer products for them.
    pub exact: bool,
    /// A token's bits are the same however a batch is cut: no kernel has another form for many columns, and prompts are read
    /// as slowly as tokens are made. Without it they are the same for any number of threads.
    pub invariant: bool,
    /// Every node's values are checked to be finite.
    pub check: bool,
}

/// The CPU backend.
pub struct CpuBackend {
    options: CpuOptions,
    team: Arc<Team>,
}

impl CpuBackend {
    /// A backend with its team of threads.
    ///
    /// # Errors
    /// The system refuses threads.
    pub fn new(options: CpuOptions) -> Result<CpuBackend> {
        let threads = options.threads.max(options.threads_batch);
        let team = Team::new(threads).map_err(|e| BackendError::OutOfMemory {
            device: "cpu".into(),
            what: format!("{threads} threads ({e})"),
            bytes: 0,
        })?;
        Ok(CpuBackend { options, team: Arc::new(team) })
    }
    pub(crate) fn isa(&self) -> Isa {
        self.options.isa
    }
    /// A kernel's form for so many columns, if it is to be used.
    pub(crate) fn wide(&self, kernel: &'static Kernel, cols: usize) -> Option<&'static Wide> {
        kernel.wide(cols).filter(|_| !self.options.invariant)
    }
    pub(crate) fn kernel(&self, format: Format) -> &'static Kernel {
        kernel::choose(self.options.isa, format, self.options.exact)
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        "cpu"
    }
    fn supports(&self, _: &Graph, _: NodeId) -> Result<(), Why> {
        Ok(())
    }
    fn activation(&self, weight: Format) -> Act {
        self.kernel(weight).act
    }
    fn alloc(&self, bytes: usize, what: &str) -> Result<Arc<dyn Buffer>> {
        let refused = || BackendError::OutOfMemory { device: "cpu".into(), what: what.into(), bytes };
        Ok(Arc::new(CpuBuffer::new(bytes).ok_or_else(refused)?))
    }
    fn load_weight(&self, file: &Arc<Gguf>, index: usize) -> Result<Arc<dyn Weight>> {
        let weight = CpuWeight::new(file.clone(), index).ok_or_else(|| BackendError::Weight {
            name: format!("number {index}"),
            why: "is not in the file".into(),
        })?;
        Ok(Arc::new(weight))
    }
    fn plan(&self, segment: &Segment) -> Result<Box<dyn Plan>> {
        plan::make(self, segment)
    }
    fn read(&self, buffer: &Arc<dyn Buffer>, offset: usize, out: &mut [u8]) -> Result<()> {
        let from = range(buffer, offset, out.len())?;
        // SAFETY: inside the buffer, and no plan of it runs: plans are waited for before they return.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }
    fn write(&self, buffer: &Arc<dyn Buffer>, offset: usize, bytes: &[u8]) -> Result<()> {
        let to = range(buffer, offset, bytes.len())?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }
}

/// The address of `bytes` bytes at `offset` of a buffer of this backend.
fn range(buffer: &Arc<dyn Buffer>, offset: usize, bytes: usize) -> Result<*mut u8> {
    let bad = |why: String| BackendError::Node { device: "cpu".into(), node: "a copy".into(), why };
    let cpu = ops::cpu_buffer(&**buffer).map_err(bad)?;
    if offset.checked_add(bytes).is_none_or(|end| end > cpu.bytes()) {
        return Err(bad(format!("{bytes} bytes at {offset} of a buffer of {}", cpu.bytes())));
    }
    // SAFETY: inside the buffer, as just checked.
    Ok(unsafe { cpu.ptr().add(offset) })
}
