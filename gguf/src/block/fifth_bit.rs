//! The 5-bit packing that Q5_0 and Q5_1 share.

use super::{nibbles, rounding};

/// The 32 quants of Q5_0 and Q5_1, 0 to 31: low bits in nibbles 16 apart, bit 4 in a little-endian `u32`.
#[inline(always)]
pub(crate) fn unpack(qh: &[u8; 4], qs: &[u8; 16]) -> [u8; 32] {
    let qh = u32::from_le_bytes(*qh);
    let mut q = nibbles::unpack(qs);
    for (j, q) in q.iter_mut().enumerate() {
        *q |= (((qh >> j) & 1) as u8) << 4;
    }
    q
}

/// The inverse of [`unpack`]; bits above the fifth are dropped.
#[inline(always)]
pub(crate) fn pack(q: &[u8; 32]) -> ([u8; 4], [u8; 16]) {
    let mut qh = 0u32;
    for (j, q) in q.iter().enumerate() {
        qh |= u32::from((q >> 4) & 1) << j;
    }
    (qh.to_le_bytes(), nibbles::pack(&rounding::each(q, |q| q & 15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_lie_where_the_layout_says() {
        let mut q = [0; 32];
        (q[0], q[3], q[16], q[31]) = (0x11, 0x0c, 0x1f, 0x12);
        let (qh, qs) = pack(&q);
        assert_eq!(qh, (1u32 | 1 << 16 | 1 << 31).to_le_bytes());
        assert_eq!((qs[0], qs[3], qs[15]), (0xf1, 0x0c, 0x20));
        assert_eq!(unpack(&qh, &qs), q);
    }
}
