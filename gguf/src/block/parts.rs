//! A block as the integers that it is made of, for rounding that chooses them one by one.
//!
//! Of every format with a [`Layout`], value `j` of a block is, with its group `g = j / group`,
//!
//! ```text
//! x'_j = (d * scale_g) * level[code_j] - (dmin * min_g)
//! ```
//!
//! in binary32 with these parentheses: the value that the format's `decode` gives, bit for bit.

/// Groups of a block, at most.
pub const GROUPS: usize = 16;
/// Values of a block, at most.
pub const VALUES: usize = 256;

/// What integers a format has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Values of a block.
    pub len: usize,
    /// Values that share a scale.
    pub group: usize,
    /// What each code stands for, in rising order.
    pub levels: &'static [i8],
    /// The least and the largest scale; both 1 where only `d` scales.
    pub scales: (i8, i8),
    /// The least and the largest minimum; both 0 where there is none, both 1 where only `dmin` (of any sign) counts.
    pub mins: (u8, u8),
}

impl Layout {
    /// Groups of a block.
    pub const fn groups(&self) -> usize {
        self.len / self.group
    }
}

/// The integers of a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The scale of the scales; [`join`](super::Block::join) rounds it to what the format stores.
    pub d: f32,
    /// The scale of the minima, likewise.
    pub dmin: f32,
    /// The scale of each group.
    pub scales: [i8; GROUPS],
    /// The minimum of each group.
    pub mins: [u8; GROUPS],
    /// The code of each value: an index into the levels.
    pub codes: [u8; VALUES],
}

impl Parts {
    /// Zeros, with the fixed scales and minima of the layout.
    pub fn new(layout: &Layout) -> Parts {
        Parts {
            d: 0.0,
            dmin: 0.0,
            scales: [layout.scales.0.max(0).min(layout.scales.1); GROUPS],
            mins: [layout.mins.0; GROUPS],
            codes: [0; VALUES],
        }
    }

    /// The scale and the minimum of a group: its values are `scale * level - min`.
    #[inline(always)]
    pub fn group(&self, g: usize) -> (f32, f32) {
        (self.d * f32::from(self.scales[g]), self.dmin * f32::from(self.mins[g]))
    }
}

/// The integers from `first` on.
pub(super) const fn range<const N: usize>(first: i8) -> [i8; N] {
    let mut levels = [first; N];
    let mut i = 1;
    while i < N {
        levels[i] = levels[i - 1] + 1;
        i += 1;
    }
    levels
}

/// The first values of an array, as an array of its own.
pub(super) fn first<T: Copy, const N: usize>(of: &[T]) -> [T; N] {
    std::array::from_fn(|i| of[i])
}

/// The layout of 32 values with one scale and nothing else.
pub(super) const fn one_scale(levels: &'static [i8]) -> Layout {
    Layout { len: 32, group: 32, levels, scales: (1, 1), mins: (0, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn a_block_taken_apart_is_put_together_again_and_decodes_by_the_formula() {
        let mut formats = 0;
        for format in Format::ALL {
            let info = format.info();
            let Some(integers) = &info.integers else { continue };
            formats += 1;
            let layout = integers.layout;
            assert_eq!((layout.len, layout.len % layout.group), (info.block_len, 0));
            assert!(layout.groups() <= GROUPS && layout.levels.is_sorted());
            for seed in 1..20 {
                let values: Vec<f32> = (0..layout.len)
                    .map(|i| ((i * seed) as f32 * 0.731).sin() * (1 + i / 16 % 5) as f32 + 0.1 * seed as f32)
                    .collect();
                let mut bytes = vec![0; info.block_bytes];
                (info.quantize)(&values, None, &mut bytes);
                let mut parts = Parts::new(layout);
                (integers.split)(&bytes, &mut parts);
                let mut decoded = vec![0.0f32; layout.len];
                (info.decode)(&bytes, &mut decoded);
                for (j, value) in decoded.iter().enumerate() {
                    let (scale, min) = parts.group(j / layout.group);
                    let level = f32::from(layout.levels[usize::from(parts.codes[j])]);
                    assert_eq!(*value, scale * level - min, "{format} value {j}");
                }
                let mut again = vec![0xff; info.block_bytes];
                (integers.join)(&parts, &mut again);
                assert_eq!(again, bytes, "{format}");
            }
        }
        assert_eq!(formats, 12);
    }
}
