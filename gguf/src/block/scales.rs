//! The 6-bit scales and minima that Q4_K and Q5_K share.
//!
//! Eight 6-bit scales and eight 6-bit minima in 12 bytes. Entries 0-3 keep their six bits together; entries
//! 4-7 keep four bits in the last four bytes and two in the unused tops of the first eight:
//!
//! | bytes | bits 7-6 | bits 5-0 |
//! |---|---|---|
//! | `0 + i`, i < 4 | bits 5-4 of scale `4 + i` | scale `i` |
//! | `4 + i` | bits 5-4 of minimum `4 + i` | minimum `i` |
//!
//! | bytes | bits 7-4 | bits 3-0 |
//! |---|---|---|
//! | `8 + i` | bits 3-0 of minimum `4 + i` | bits 3-0 of scale `4 + i` |
//!
//! Source: `get_scale_min_k4` in ggml-quants.c.

/// Bytes of the packed form.
pub const BYTES: usize = 12;

/// The eight scales and the eight minima, each 0 to 63.
///
/// Four bytes at a time: this is in the innermost loop of matrix products.
#[inline(always)]
pub fn unpack(packed: &[u8; BYTES]) -> ([u8; 8], [u8; 8]) {
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const TOP: u32 = 0x3030_3030;
    let word = |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (s, m, low) = (word(0), word(4), word(8));
    let eight = |first: u32, last: u32| (u64::from(first) | u64::from(last) << 32).to_le_bytes();
    // Shifts bring bits 7-6 of each byte to bits 5-4.
    let scales = eight(s & SIX, low & FOUR | (s >> 2) & TOP);
    let mins = eight(m & SIX, (low >> 4) & FOUR | (m >> 2) & TOP);
    (scales, mins)
}

/// The packed form of eight scales and eight minima, each 0 to 63 (higher bits are dropped).
#[inline(always)]
pub fn pack(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; BYTES] {
    let mut packed = [0; BYTES];
    for i in 0..4 {
        packed[i] = (scales[i] & 63) | (scales[4 + i] >> 4) << 6;
        packed[4 + i] = (mins[i] & 63) | (mins[4 + i] >> 4) << 6;
        packed[8 + i] = (scales[4 + i] & 15) | (mins[4 + i] & 15) << 4;
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_in_every_place() {
        for i in 0..8 {
            for v in 0..64 {
                let (mut scales, mut mins) = ([21; 8], [42; 8]);
                scales[i] = v;
                mins[7 - i] = 63 - v;
                assert_eq!(unpack(&pack(&scales, &mins)), (scales, mins));
            }
        }
    }

    #[test]
    fn bits_lie_where_the_table_says() {
        let (scales, mins) = ([1, 2, 3, 4, 0x15, 0x26, 0x37, 0x08], [9, 10, 11, 12, 0x1d, 0x2e, 0x3f, 0x00]);
        let packed = [0x41, 0x82, 0xc3, 0x04, 0x49, 0x8a, 0xcb, 0x0c, 0xd5, 0xe6, 0xf7, 0x08];
        assert_eq!(pack(&scales, &mins), packed);
        assert_eq!(unpack(&packed), (scales, mins));
    }
}
