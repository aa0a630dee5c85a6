//! Functions of one or two vectors, for norms, attention and activations: chosen once per instruction set.
//!
//! Sums are taken in an order of the instruction set's own: results agree between sets up to rounding, and are the same
//! for the same slice always.

use half::{bf16, f16};

use super::isa::Isa;
use super::table::table;

/// The vector functions of an instruction set. Lengths are checked before the pointers are called.
pub struct Vector {
    pub(super) dot: unsafe fn(&[f32], &[f32]) -> f32,
    pub(super) dot_f16: unsafe fn(&[f32], &[f16]) -> f32,
    pub(super) dot_bf16: unsafe fn(&[f32], &[bf16]) -> f32,
    pub(super) axpy: unsafe fn(&mut [f32], f32, &[f32]),
    pub(super) axpy_f16: unsafe fn(&mut [f32], f32, &[f16]),
    pub(super) axpy_bf16: unsafe fn(&mut [f32], f32, &[bf16]),
    pub(super) scale: unsafe fn(&mut [f32], f32),
    pub(super) max: unsafe fn(&[f32]) -> f32,
    pub(super) sum: unsafe fn(&[f32]) -> f32,
    pub(super) exp_sum: unsafe fn(&mut [f32], f32) -> f32,
    pub(super) hadamard: unsafe fn(&mut [f32]),
}

/// The vector functions of an instruction set.
///
/// # Panics
/// Where this machine does not have it.
pub fn vector(isa: Isa) -> &'static Vector {
    table(isa).vector
}

// The tables are only reached through `table`, which has checked that the machine has the instruction set: this is
// the one obligation of every pointer below, together with equal lengths.
impl Vector {
    /// The sum of `a[i] * b[i]`.
    ///
    /// # Panics
    /// Where lengths differ.
    #[inline]
    pub fn dot(&self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        // SAFETY: equal lengths, and the machine has the instruction set.
        unsafe { (self.dot)(a, b) }
    }
    /// The sum of `a[i] * b[i]`, in f32.
    ///
    /// # Panics
    /// Where lengths differ.
    #[inline]
    pub fn dot_f16(&self, a: &[f32], b: &[f16]) -> f32 {
        assert_eq!(a.len(), b.len());
        // SAFETY: equal lengths, and the machine has the instruction set.
        unsafe { (self.dot_f16)(a, b) }
    }
    /// The sum of `a[i] * b[i]`, in f32.
    ///
    /// # Panics
    /// Where lengths differ.
    #[inline]
    pub fn dot_bf16(&self, a: &[f32], b: &[bf16]) -> f32 {
        assert_eq!(a.len(), b.len());
        // SAFETY: equal lengths, and the machine has the instruction set.
        unsafe { (self.dot_bf16)(a, b) }
    }
    /// `acc[i] += a * x[i]`.
    ///
    /// # Panics
    /// Where lengths differ.
    #[inline]
    pub fn axpy(&self, acc: &mut [f32], a: f32, x: &[f32]) {
        assert_eq!(acc.len(), x.len());
        // SAFETY: equal lengths, and the machine has the instruction set.
        unsafe { (self.axpy)(acc, a, x) }
    }
    /// `acc[i] += a * x[i]`, in f32.
    ///
    /// # Panics
    /// Where lengths differ.
    #[inline]
    pub fn axpy_f16(&self, acc: &mut [f32], a: f32, x: &[f16]) {
        assert_eq!(acc.len(), x.len());
        // SAFETY: equal lengths, and the machine has the instruction set.
        unsafe { (self.axpy_f16)(acc, a, x) }
    }
    /// `acc[i] += a * x[i]`, in f32.
    ///
    /// # Panics
    /// Where lengths differ.
    #[inline]
    pub fn axpy_bf16(&self, acc: &mut [f32], a: f32, x: &[bf16]) {
        assert_eq!(acc.len(), x.len());
        // SAFETY: equal lengths, and the machine has the instruction set.
        unsafe { (self.axpy_bf16)(acc, a, x) }
    }
    /// `x[i] *= a`.
    #[inline]
    pub fn scale(&self, x: &mut [f32], a: f32) {
        // SAFETY: the machine has the instruction set.
        unsafe { (self.scale)(x, a) }
    }
    /// The largest value, NaN passed over; negative infinity where there is none.
    #[inline]
    pub fn max(&self, x: &[f32]) -> f32 {
        // SAFETY: the machine has the instruction set.
        unsafe { (self.max)(x) }
    }
    /// The sum.
    #[inline]
    pub fn sum(&self, x: &[f32]) -> f32 {
        // SAFETY: the machine has the instruction set.
        unsafe { (self.sum)(x) }
    }
    /// The heart of a softmax: `x[i] = exp(x[i] - max)` and the sum of them. Within 2 units in the last place of
    /// the true exponential, 0 below -87.3 (negative infinity included), NaN where `x[i]` is.
    #[inline]
    pub fn exp_sum(&self, x: &mut [f32], max: f32) -> f32 {
        // SAFETY: the machine has the instruction set.
        unsafe { (self.exp_sum)(x, max) }
    }
    /// Turn a row by the normalised Walsh-Hadamard transform: see `cpu::hadamard`. The same bits with every
    /// instruction set.
    #[inline]
    pub fn hadamard(&self, row: &mut [f32]) {
        // SAFETY: the machine has the instruction set.
        unsafe { (self.hadamard)(row) }
    }
}

/// The constants that the exponentials of all instruction sets share.
pub(super) mod exp {
    /// Below, the result is 0.
    pub const MIN: f32 = -87.3;
    /// Above, the result is infinite.
    pub const MAX: f32 = 88.72;
    /// The upper bits of ln 2: its product with an integer up to 128 is exact.
    pub const LN2_HIGH: f32 = 355.0 / 512.0;
    /// ln 2 less [`LN2_HIGH`].
    pub const LN2_LOW: f32 = -2.121_944_4e-4;
    /// The Taylor coefficients of the exponential, the highest first: 1/7! ... 1/0!.
    pub const COEFFICIENTS: [f32; 8] =
        [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
}
