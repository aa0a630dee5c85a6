//! One file per block format: its layout, `decode`, `encode`.
//!
//! A tensor's rows are stored as blocks of [`Block::LEN`] values that share a scale. Every block type here is
//! plain old data of alignment 1 in the byte order of the file (little-endian), so that a borrowed slice of a
//! mapped file at any offset *is* a slice of blocks: `bytemuck::try_cast_slice::<u8, BlockQ4K>(bytes)`.
//!
//! The layouts are those of ggml (`ggml-common.h` of <https://github.com/ggml-org/ggml>), the rounding of
//! `encode` is that of its reference functions (`quantize_row_*_ref` in `ggml-quants.c`). The order of the
//! float operations decides the last bit, so each file states its formula with the parentheses that count.

use bytemuck::Pod;

pub mod bf16;
pub mod f16;
mod fifth_bit;
mod fit;
mod fit_blocks;
pub mod iq4_nl;
pub mod iq4_xs;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lanes_x86;
pub mod mxfp4;
mod nibbles;
pub mod parts;
pub mod plain;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
mod rounding;
pub mod scales;
mod search;

/// Decodes whole blocks: see [`decode_blocks`].
pub type Decoder = fn(bytes: &[u8], out: &mut [f32]);
/// Encodes whole blocks: see [`encode_blocks`].
pub type Encoder = fn(values: &[f32], out: &mut [u8]);

/// Encodes whole rows for a file: see [`quantize_blocks`].
pub type Quantizer = fn(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]);

/// A block of a format: [`LEN`](Block::LEN) values in `size_of::<Self>()` bytes.
pub trait Block: Pod {
    /// The decoded values: `[f32; LEN]`.
    type Values: Pod;
    /// Values in a block.
    const LEN: usize = size_of::<Self::Values>() / size_of::<f32>();

    /// The integers that a block is made of, where rounding can choose them; [`Block::split`] and [`Block::join`] are for
    /// formats that have them.
    const LAYOUT: Option<&'static parts::Layout> = None;

    /// Take the block apart.
    fn split(&self, parts: &mut parts::Parts) {
        let _ = parts;
    }

    /// The block of these integers. Scales, minima and codes lie in the ranges of the layout.
    fn join(parts: &parts::Parts) -> Self {
        let _ = parts;
        <Self as bytemuck::Zeroable>::zeroed()
    }

    /// The values of this block, bit for bit as ggml's reference computes them.
    fn decode(&self, out: &mut Self::Values);

    /// The block nearest to `values` by the rule of the format, rounding as ggml's reference does.
    ///
    /// NaN and infinite values give some block of the format, and never a panic.
    fn encode(values: &Self::Values) -> Self;

    /// Decode as many blocks as both slices hold. Formats with a faster way for many blocks override this.
    fn decode_all(blocks: &[Self], out: &mut [Self::Values]) {
        for (block, out) in blocks.iter().zip(out) {
            block.decode(out);
        }
    }

    /// Encode as many blocks as both slices hold. Formats with a faster way for many blocks override this.
    fn encode_all(values: &[Self::Values], out: &mut [Self]) {
        for (values, block) in values.iter().zip(out) {
            *block = Self::encode(values);
        }
    }

    /// Encode for a file, where a search may take its time: the same blocks as [`Block::encode_all`] (or better ones where
    /// the format says so); with `importance`, which then belongs to the one row that `values` are, those that make the
    /// squared error weighted by the importance of each column small. Formats that have no choice pass it over.
    fn quantize(values: &[Self::Values], importance: Option<&[Self::Values]>, out: &mut [Self]) {
        let _ = importance;
        Self::encode_all(values, out);
    }
}

/// Decode whole blocks: `bytes.len() / size_of::<B>()` of them into `B::LEN` values each.
///
/// `bytes` may start at any offset. Both lengths should be whole and equal numbers of blocks (a debug build
/// asserts it); otherwise as many blocks are decoded as both slices hold, and the rest of `out` is left alone.
pub fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let n = whole_blocks::<B>(bytes.len(), out.len());
    let blocks = bytemuck::cast_slice::<u8, B>(&bytes[..n * size_of::<B>()]);
    let values = bytemuck::cast_slice_mut::<f32, B::Values>(&mut out[..n * B::LEN]);
    B::decode_all(blocks, values);
}

/// Encode whole blocks: `values.len() / B::LEN` of them into `size_of::<B>()` bytes each.
///
/// The lengths are treated as [`decode_blocks`] treats them.
pub fn encode_blocks<B: Block>(values: &[f32], out: &mut [u8]) {
    let n = whole_blocks::<B>(out.len(), values.len());
    let values = bytemuck::cast_slice::<f32, B::Values>(&values[..n * B::LEN]);
    let blocks = bytemuck::cast_slice_mut::<u8, B>(&mut out[..n * size_of::<B>()]);
    B::encode_all(values, blocks);
}

/// Encode whole rows for a file: `values` are rows of `importance.len()` values each, which is a whole number of blocks.
///
/// `importance` weighs the squared error of each column: the mean square of the activations that meet it. All should be
/// finite and not negative. Without it every value counts as the format's own search has it, and rows need not be told
/// apart. The lengths of `values` and `out` are treated as [`decode_blocks`] treats them.
pub fn quantize_blocks<B: Block>(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let n = whole_blocks::<B>(out.len(), values.len());
    let values = bytemuck::cast_slice::<f32, B::Values>(&values[..n * B::LEN]);
    let blocks = bytemuck::cast_slice_mut::<u8, B>(&mut out[..n * size_of::<B>()]);
    let Some(importance) = importance.filter(|row| row.len() >= B::LEN) else {
        return B::quantize(values, None, blocks);
    };
    let row = importance.len() / B::LEN;
    let importance = bytemuck::cast_slice::<f32, B::Values>(&importance[..row * B::LEN]);
    for (values, blocks) in values.chunks(row).zip(blocks.chunks_mut(row)) {
        B::quantize(values, Some(&importance[..values.len()]), blocks);
    }
}

/// Take one block apart; `bytes` are its bytes.
pub fn split_block<B: Block>(bytes: &[u8], parts: &mut parts::Parts) {
    if let Some(block) =
        bytemuck::cast_slice::<u8, B>(&bytes[..whole_blocks::<B>(bytes.len(), B::LEN) * size_of::<B>()])
            .first()
    {
        block.split(parts);
    }
}

/// Put one block together; `out` gets its bytes.
pub fn join_block<B: Block>(parts: &parts::Parts, out: &mut [u8]) {
    if let Some(out) = out.get_mut(..size_of::<B>()) {
        out.copy_from_slice(bytemuck::bytes_of(&B::join(parts)));
    }
}

/// How many blocks both sides hold. The assertions are what makes the casts above infallible.
fn whole_blocks<B: Block>(bytes: usize, values: usize) -> usize {
    const {
        assert!(align_of::<B>() == 1, "blocks are cast from any byte offset");
        assert!(align_of::<B::Values>() == align_of::<f32>());
        assert!(size_of::<B::Values>() == B::LEN * size_of::<f32>() && B::LEN > 0);
    }
    let n = (bytes / size_of::<B>()).min(values / B::LEN);
    debug_assert!(
        n * size_of::<B>() == bytes && n * B::LEN == values,
        "{bytes} bytes and {values} values are not the same whole number of blocks"
    );
    n
}

#[cfg(test)]
pub(crate) mod golden {
    //! Golden bytes and values, made by `tests/tools/format_vectors.py --golden`.
    use bytemuck::Zeroable as _;

    use super::Block;

    /// The input of the golden blocks: a scrambled ramp whose sub-blocks differ in magnitude.
    fn input<B: Block>() -> B::Values {
        let values: Vec<f32> = (0..B::LEN)
            .map(|i| ((i * 37 + 11) % 101) as f32 - 50.0)
            .zip(0..)
            .map(|(v, i)| v * (1 + i / 16 % 5) as f32 / 128.0)
            .collect();
        bytemuck::pod_read_unaligned(bytemuck::cast_slice(&values))
    }

    /// The input encodes to these bytes (ggml's, in hexadecimal), which decode to these values (the `gguf`
    /// package's), bit for bit. Of 256 values, every 17th is given: one for each sub-block, each elsewhere in it.
    pub(crate) fn check<B: Block>(hex: &str, values: &[f32]) {
        let block = B::encode(&input::<B>());
        let expected: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal"))
            .collect();
        assert_eq!(bytemuck::bytes_of(&block), expected);

        let decoded = decoded(&block);
        let stride = if B::LEN == 32 { 1 } else { 17 };
        let sampled: Vec<f32> = decoded.into_iter().step_by(stride).collect();
        assert_eq!(bits(&sampled), bits(values), "{sampled:?}");
    }

    /// The number of these bytes.
    pub(crate) fn decodes<B: Block>(bytes: &[u8], value: f32) {
        assert_eq!(bits(&decoded::<B>(&bytemuck::pod_read_unaligned(bytes))), bits(&[value]));
    }

    /// The bytes of this number.
    pub(crate) fn encodes<B: Block>(value: f32, bytes: &[u8]) {
        let block = B::encode(&bytemuck::pod_read_unaligned(bytemuck::bytes_of(&value)));
        assert_eq!(bytemuck::bytes_of(&block), bytes);
    }

    fn decoded<B: Block>(block: &B) -> Vec<f32> {
        let mut out = B::Values::zeroed();
        block.decode(&mut out);
        bytemuck::cast_slice(std::slice::from_ref(&out)).to_vec()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_offset_does() {
        let mut bytes = [0u8; 1 + 34 * 2];
        bytes[1..].copy_from_slice(&[[0, 0x3c].as_slice(), &[7; 32]].concat().repeat(2));
        for offset in 0..2 {
            let mut out = [0f32; 32];
            decode_blocks::<q8_0::BlockQ8_0>(&bytes[offset..offset + 34], &mut out);
            assert_eq!(out == [7.0; 32], offset == 1);
        }
    }
}
