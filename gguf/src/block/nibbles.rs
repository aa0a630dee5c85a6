//! Two 4-bit quants per byte, 16 apart: the packing of every 4-bit format with 32 values in a block.

/// Byte `j` holds quant `j` in bits 3-0 and quant `16 + j` in bits 7-4; each is 0 to 15.
#[inline(always)]
pub(crate) fn pack(quants: &[u8; 32]) -> [u8; 16] {
    let mut packed = [0; 16];
    for j in 0..16 {
        packed[j] = quants[j] | (quants[16 + j] << 4);
    }
    packed
}

/// The inverse of [`pack`].
#[inline(always)]
pub(crate) fn unpack(packed: &[u8; 16]) -> [u8; 32] {
    let mut quants = [0; 32];
    for j in 0..16 {
        quants[j] = packed[j] & 15;
        quants[16 + j] = packed[j] >> 4;
    }
    quants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_nibbles_come_first() {
        let mut quants = [0; 32];
        (quants[0], quants[16], quants[15], quants[31]) = (1, 2, 3, 4);
        let packed = pack(&quants);
        assert_eq!((packed[0], packed[15], packed[7]), (0x21, 0x43, 0));
        assert_eq!(unpack(&packed), quants);
    }
}
