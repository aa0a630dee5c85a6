//! What an instruction set brings: its kernels, its rounding of activations, its vector functions.

use super::act::Quantize;
use super::attention::kernels::Kernels;
use super::isa::Isa;
use super::kernel::Kernel;
use super::vector::Vector;

/// All that is written for one instruction set.
pub(super) struct Table {
    /// Kernels in groups, the preferred first. A format may be absent: see [`Isa::parent`].
    pub kernels: &'static [&'static [Kernel]],
    /// Rounding of activations.
    pub quantize: &'static Quantize,
    /// Vector functions.
    pub vector: &'static Vector,
    /// Attention.
    pub attention: &'static Kernels,
}

/// The table of an instruction set.
///
/// # Panics
/// Where this machine does not have it: what comes from a table is called as if it did. A name that a user
/// gave has passed [`Isa::require`].
pub(super) fn table(isa: Isa) -> &'static Table {
    assert!(isa.is_available(), "the instruction set {isa} is not on this machine");
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &super::avx2::TABLE,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => &super::avx2::TABLE_VNNI,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &super::avx512::TABLE,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => &super::avx512::TABLE_VNNI,
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => &super::amx::TABLE,
        _ => &super::reference::TABLE,
    }
}
