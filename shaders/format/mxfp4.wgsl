// Groups of 16 blocks: quants 16 x 16 bytes, exponents 16 x u8. value = 2^(e - 128) * (twice an E2M1 float), an integer.
const MXFP4_LEN: u32 = 32u;
const MXFP4_PAIRS: u32 = 1u;
const MXFP4_BIASED: bool = false;

fn mxfp4_quants(block: u32) -> vec4<u32> { return word4((block >> 4u) * 17u + (block & 15u)); }

fn mxfp4_scale(block: u32) -> f32 {
    let e = byte_at(word((block >> 4u) * 68u + 64u + ((block & 15u) >> 2u)), block & 3u);
    // Below 2^-126 a subnormal number.
    return bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << (e & 1u), e < 2u));
}

// 0 1 2 3 4 6 8 12 by the lower three bits of a nibble, with the sign of the fourth.
fn mxfp4_values(v: vec4<u32>) -> vec4<u32> {
    let one = vec4<u32>(0x01010101u);
    let b0 = v & one;
    let b1 = (v >> vec4<u32>(1u)) & one;
    let b2 = (v >> vec4<u32>(2u)) & one;
    let not1 = b1 ^ one;
    let not2 = b2 ^ one;
    let ones = not2 & b0;
    let twos = (not2 & b1) | (b2 & not1 & b0);
    let fours = b2 & (not1 | b0);
    let eights = b2 & b1;
    let size = ones | (twos << vec4<u32>(1u)) | (fours << vec4<u32>(2u)) | (eights << vec4<u32>(3u));
    let sign = ((v >> vec4<u32>(3u)) & one) * vec4<u32>(255u);
    // As in `minus`: bit 7 keeps bytes apart while they are added to and subtracted from.
    let apart = vec4<u32>(0x80808080u);
    return ((apart + (size & ~sign)) - (size & sign)) ^ apart;
}

fn mxfp4_at(p: u32) -> vec2<u32> { return vec2<u32>(0u, 1u); }

fn mxfp4_pair(block: u32, p: u32) -> Pair {
    let v = mxfp4_quants(block);
    let d = mxfp4_scale(block);
    return Pair(vec2<f32>(d), vec2<f32>(0.0), mxfp4_values(v), mxfp4_values(v >> vec4<u32>(4u)));
}

fn mxfp4_unit(block: u32, u: u32) -> Unit {
    return Unit(mxfp4_scale(block), 0.0, mxfp4_values(mxfp4_quants(block) >> vec4<u32>(4u * u)));
}
