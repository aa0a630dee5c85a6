//! Sixteen sub-blocks side by side: the searches of the encoders, one lane a sub-block.
//!
//! A search sums up in a fixed order, so one sub-block alone cannot be summed up by vector instructions without changing the
//! last bit. Sixteen at once can: every lane does what the search for one sub-block does, operation by operation, and what
//! is decided by a branch there is decided by a selection here. The result has the same bits.
//!
//! [`Lanes`] is what the searches need of sixteen numbers. [`Plain`] has it everywhere, [`super::lanes_x86`] by the vector
//! instructions of AVX2 and AVX-512; [`widest`] calls a search with the best that the machine has.

use std::ops::{Add, Div, Mul, Sub};

use super::rounding;

/// Sub-blocks side by side.
pub(crate) const LANES: usize = 16;

/// A number for each of sixteen sub-blocks.
pub(crate) trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// A decision for each sub-block.
    type Mask: Copy;

    /// These numbers.
    fn new(values: [f32; LANES]) -> Self;
    /// The numbers.
    fn get(self) -> [f32; LANES];
    /// The numbers, which are whole and 0 to 255, as bytes.
    fn bytes(self) -> [u8; LANES];
    /// The same number for all.
    fn all(v: f32) -> Self;
    /// Magnitudes.
    fn abs(self) -> Self;
    /// Negated.
    fn neg(self) -> Self;
    /// Square roots.
    fn sqrt(self) -> Self;
    /// Rounded as [`rounding::nearest`] does, then clamped.
    fn nearest(self, min: i32, max: i32) -> Self;
    /// `self < other`
    fn lt(self, other: Self) -> Self::Mask;
    /// `self >= other`
    fn ge(self, other: Self) -> Self::Mask;
    /// `self == other`
    fn eq(self, other: Self) -> Self::Mask;
    /// `yes` where decided so, else `no`.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Both.
    fn and(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Not.
    fn not(a: Self::Mask) -> Self::Mask;
    /// Whether any is decided so.
    fn any(a: Self::Mask) -> bool;

    /// `self > other`
    #[inline(always)]
    fn gt(self, other: Self) -> Self::Mask {
        other.lt(self)
    }
}

/// Sixteen numbers of any machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

macro_rules! each_lane {
    (|$i:ident| $body:expr) => {{
        let mut out = [Default::default(); LANES];
        for $i in 0..LANES {
            out[$i] = $body;
        }
        out
    }};
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:tt) => {
        impl $trait for Plain {
            type Output = Plain;
            #[inline(always)]
            fn $method(self, other: Plain) -> Plain {
                Plain(each_lane!(|i| self.0[i] $op other.0[i]))
            }
        }
    };
}
operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);

impl Lanes for Plain {
    type Mask = [bool; LANES];

    #[inline(always)]
    fn new(values: [f32; LANES]) -> Plain {
        Plain(values)
    }
    #[inline(always)]
    fn get(self) -> [f32; LANES] {
        self.0
    }
    #[inline(always)]
    fn bytes(self) -> [u8; LANES] {
        each_lane!(|i| self.0[i] as u8)
    }
    #[inline(always)]
    fn all(v: f32) -> Plain {
        Plain([v; LANES])
    }
    #[inline(always)]
    fn abs(self) -> Plain {
        Plain(each_lane!(|i| self.0[i].abs()))
    }
    #[inline(always)]
    fn neg(self) -> Plain {
        Plain(each_lane!(|i| -self.0[i]))
    }
    #[inline(always)]
    fn sqrt(self) -> Plain {
        Plain(each_lane!(|i| self.0[i].sqrt()))
    }
    #[inline(always)]
    fn nearest(self, min: i32, max: i32) -> Plain {
        Plain(each_lane!(|i| rounding::nearest(self.0[i]).clamp(min, max) as f32))
    }
    #[inline(always)]
    fn lt(self, other: Plain) -> Self::Mask {
        each_lane!(|i| self.0[i] < other.0[i])
    }
    #[inline(always)]
    fn ge(self, other: Plain) -> Self::Mask {
        each_lane!(|i| self.0[i] >= other.0[i])
    }
    #[inline(always)]
    fn eq(self, other: Plain) -> Self::Mask {
        each_lane!(|i| self.0[i] == other.0[i])
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Plain, no: Plain) -> Plain {
        Plain(each_lane!(|i| if mask[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    fn and(a: Self::Mask, b: Self::Mask) -> Self::Mask {
        each_lane!(|i| a[i] && b[i])
    }
    #[inline(always)]
    fn not(a: Self::Mask) -> Self::Mask {
        each_lane!(|i| !a[i])
    }
    #[inline(always)]
    fn any(a: Self::Mask) -> bool {
        a.contains(&true)
    }
}

/// The sub-blocks of whole blocks side by side: value `j` of sub-block `s` in lane `s` of row `j`. Lanes for which there is no
/// sub-block are 0.
#[inline(always)]
pub(crate) fn gather<V: Lanes, const N: usize>(values: &[f32]) -> [V; N] {
    let mut turned = [[0.0; LANES]; N];
    for (s, values) in values.as_chunks::<N>().0.iter().take(LANES).enumerate() {
        for j in 0..N {
            turned[j][s] = values[j];
        }
    }
    let mut out = [V::all(0.0); N];
    for j in 0..N {
        out[j] = V::new(turned[j]);
    }
    out
}

/// Define a function that calls its generic body with the widest [`Lanes`] of this machine.
macro_rules! widest {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use super::lanes_x86::{Avx2, Avx512};
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) {
                    $body::<Avx512>($($arg),*);
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) {
                    $body::<Avx2>($($arg),*);
                }
                if Avx512::is_here() {
                    // SAFETY: the machine was just found to have what the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if Avx2::is_here() {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<super::lanes::Plain>($($arg),*);
        }
    };
}
pub(crate) use widest;
