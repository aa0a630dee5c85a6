// Groups of 4 blocks: quants 4 x 64 bytes, scales and minima 4 x 16 bytes, their scales 4 x 2 f16.
// value = (d * sc) * q - (dmin * m), sub-blocks of 16: sub-block s lies in quant vector s / 8 * 2 + s % 2, bits from s / 2 % 4 * 2.
const Q2_K_LEN: u32 = 256u;
const Q2_K_PAIRS: u32 = 8u;
const Q2_K_BIASED: bool = true;

fn q2_k_quants(block: u32, v: u32) -> vec4<u32> { return word4((block >> 2u) * 21u + (block & 3u) * 4u + v); }

// Scale and bias of sub-block s.
fn q2_k_scale(block: u32, s: u32) -> vec2<f32> {
    let at = (block >> 2u) * 84u;
    let both = byte_at(word(at + 64u + (block & 3u) * 4u + (s >> 2u)), s & 3u);
    let d = unpack2x16float(word(at + 80u + (block & 3u)));
    return vec2<f32>(d.x * f32(both & 15u), -d.y * f32(both >> 4u));
}

fn q2_k_bits(v: vec4<u32>, shift: u32) -> vec4<u32> { return (v >> vec4<u32>(shift)) & vec4<u32>(0x03030303u); }

// Pair p: quant vector p / 2, its lower or its upper four bits.
fn q2_k_at(p: u32) -> vec2<u32> {
    let first = (p >> 2u) * 8u + (p & 1u) * 4u + ((p >> 1u) & 1u);
    return vec2<u32>(first, first + 2u);
}

fn q2_k_pair(block: u32, p: u32) -> Pair {
    let at = q2_k_at(p);
    let v = q2_k_quants(block, p >> 1u);
    let a = q2_k_scale(block, at.x);
    let b = q2_k_scale(block, at.y);
    let shift = (p & 1u) * 4u;
    return Pair(vec2<f32>(a.x, b.x), vec2<f32>(a.y, b.y), q2_k_bits(v, shift), q2_k_bits(v, shift + 2u));
}

fn q2_k_unit(block: u32, s: u32) -> Unit {
    let d = q2_k_scale(block, s);
    let v = q2_k_quants(block, (s >> 3u) * 2u + (s & 1u));
    return Unit(d.x, d.y, q2_k_bits(v, ((s >> 1u) & 3u) * 2u));
}
