//! Formats without blocks: one number, little-endian, of Rust's own types.

use bytemuck::{Pod, Zeroable};

use super::Block;

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident: $number:ty, $encode:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub [u8; size_of::<$number>()]);

        const _: () = assert!(size_of::<$name>() == size_of::<$number>() && align_of::<$name>() == 1);

        impl Block for $name {
            type Values = [f32; 1];

            #[inline]
            #[allow(clippy::unnecessary_cast)]
            fn decode(&self, out: &mut [f32; 1]) {
                out[0] = <$number>::from_le_bytes(self.0) as f32;
            }

            #[inline]
            fn encode(values: &[f32; 1]) -> Self {
                let encode: fn(f32) -> $number = $encode;
                $name(encode(values[0]).to_le_bytes())
            }
        }
    )*};
}

plain! {
    /// IEEE binary32. Size: 4 bytes.
    F32Le: f32, |v| v;
    /// IEEE binary64; decoding rounds to the nearest binary32 number. Size: 8 bytes.
    F64Le: f64, f64::from;
    /// 8-bit integer; encoding rounds half away from zero and saturates (NaN becomes 0). Size: 1 byte.
    I8Le: i8, |v| v.round() as i8;
    /// 16-bit integer; encoding as [`I8Le`]. Size: 2 bytes.
    I16Le: i16, |v| v.round() as i16;
    /// 32-bit integer; encoding as [`I8Le`], decoding rounds to the nearest binary32 number. Size: 4 bytes.
    I32Le: i32, |v| v.round() as i32;
    /// 64-bit integer; encoding and decoding as [`I32Le`]. Size: 8 bytes.
    I64Le: i64, |v| v.round() as i64;
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn golden_bytes() {
        golden::decodes::<F32Le>(&[0, 0, 0xc0, 0xbf], -1.5);
        golden::decodes::<F64Le>(&[0, 0, 0, 0, 0, 0, 0xf8, 0xbf], -1.5);
        golden::decodes::<I8Le>(&[0x80], -128.0);
        golden::decodes::<I16Le>(&[0xfe, 0xff], -2.0);
        golden::decodes::<I32Le>(&[0xff, 0xff, 0xff, 0x7f], 2_147_483_648.0);
        golden::decodes::<I64Le>(&[0, 0, 0, 0, 0, 0, 0, 0x80], -9_223_372_036_854_775_808.0);
        golden::encodes::<F64Le>(-1.5, &[0, 0, 0, 0, 0, 0, 0xf8, 0xbf]);
    }

    #[test]
    fn integers_round_and_saturate() {
        golden::encodes::<I8Le>(2.5, &[3]);
        golden::encodes::<I8Le>(-300.0, &[0x80]);
        golden::encodes::<I16Le>(f32::NAN, &[0, 0]);
        golden::encodes::<I32Le>(-2.5, &(-3i32).to_le_bytes());
        golden::encodes::<I64Le>(f32::INFINITY, &i64::MAX.to_le_bytes());
    }
}
