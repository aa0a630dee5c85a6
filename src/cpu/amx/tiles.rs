//! AMX: eight tile registers of 16 rows of 64 bytes, and products of tiles.
//!
//! The intrinsics are not in stable Rust, the instructions are, through `asm!`. The system gives tile registers to
//! a process that asks for them; it is asked once, when instruction sets are detected.

use std::arch::asm;

/// Bytes of a row of a tile.
pub(super) const ROW: usize = 64;
/// Bytes of a tile.
pub(super) const TILE: usize = 16 * ROW;

/// Whether the processor has AMX for 8-bit integers and bf16, and the system lets this process use it.
#[cfg(target_os = "linux")]
pub(in crate::cpu) fn are_available() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// In EDX of leaf 7: AMX-BF16, AMX-TILE and AMX-INT8 (Intel SDM, volume 2, CPUID).
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    /// In ECX of leaf 1: the system uses XSAVE, so that XGETBV may be asked.
    const OSXSAVE: u32 = 1 << 27;
    /// In XCR0: the system keeps tile configuration and tile data (Intel SDM, volume 1, 13.3).
    const STATE: u64 = 1 << 17 | 1 << 18;
    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`: Linux, Documentation/arch/x86/xstate.rst.
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;

    #[target_feature(enable = "xsave")]
    fn kept() -> u64 {
        // SAFETY: the system uses XSAVE, as the caller has checked.
        unsafe { _xgetbv(0) }
    }
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).edx & FEATURES != FEATURES {
        return false;
    }
    // SAFETY: OSXSAVE says that the processor has XSAVE.
    let kept = unsafe { kept() };
    // SAFETY: the call takes two numbers and touches no memory of ours.
    kept & STATE == STATE && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } == 0
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
pub(in crate::cpu) fn are_available() -> bool {
    false
}

/// What the tile registers of this thread hold: rows and bytes of a row, for each (Intel SDM, LDTILECFG).
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Tiles 0 to 3 are results of `rows` rows, tile 4 is a first operand of as many rows of `depth` bytes, tiles 5 to
    /// 7 are second operands of `depth / 4` rows of words.
    pub(super) const fn new(rows: usize, depth: usize) -> Shapes {
        let mut shapes =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut i = 0;
        while i < 8 {
            let (r, bytes) = if i < 4 {
                (rows, ROW)
            } else if i == 4 {
                (rows, depth)
            } else {
                (depth / 4, ROW)
            };
            shapes.rows[i] = r as u8;
            shapes.row_bytes[i] = bytes as u16;
            i += 1;
        }
        shapes
    }

    /// Give the tile registers these shapes, and zeros.
    ///
    /// # Safety
    /// The machine has AMX, and rows are 1 to 16.
    #[inline]
    pub(super) unsafe fn load(&self) {
        // SAFETY: 64 readable bytes that describe palette 1.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) self, options(nostack, readonly, preserves_flags),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
        }
    }
}

/// The tile registers in use; given back when dropped, so that threads that sleep have none to be saved.
pub(super) struct InUse(());

impl InUse {
    /// From here on the tile registers are used.
    pub(super) fn new() -> InUse {
        InUse(())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // SAFETY: whoever made this has loaded shapes, so the machine has AMX.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}
