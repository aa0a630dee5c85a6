// Groups of 8 blocks: low bits 8 x 64 bytes, third bits 8 x 32 bytes, scales 8 x 12 bytes, their scales 8 x f16.
// value = (d * (sc - 32)) * (q - 4), sub-blocks of 16: the low bits of sub-block s lie in vector s / 8 * 2 + s % 2 from bit
// s / 2 % 4 * 2, its third bits in vector s % 2 at bit s / 2.
const Q3_K_LEN: u32 = 256u;
const Q3_K_PAIRS: u32 = 8u;
const Q3_K_BIASED: bool = false;

fn q3_k_low(block: u32, v: u32) -> vec4<u32> { return word4((block >> 3u) * 55u + (block & 7u) * 4u + v); }

fn q3_k_third(block: u32, v: u32) -> vec4<u32> { return word4((block >> 3u) * 55u + 32u + (block & 7u) * 2u + v); }

// The 6 bits of scale s: bits 3-0 in byte s % 8 (its half s / 8), bits 5-4 in byte 8 + s % 4 (from bit s / 4 * 2).
fn q3_k_scale(block: u32, s: u32) -> f32 {
    let at = (block >> 3u) * 220u;
    let scales = at + 192u + (block & 7u) * 3u;
    let low = (word(scales + ((s >> 2u) & 1u)) >> ((s & 3u) * 8u + (s >> 3u) * 4u)) & 15u;
    let high = (word(scales + 2u) >> ((s & 3u) * 8u + (s >> 2u) * 2u)) & 3u;
    let d = float_at(word(at + 216u + ((block & 7u) >> 1u)), block & 1u);
    return d * f32(i32(low | (high << 4u)) - 32);
}

fn q3_k_bits(low: vec4<u32>, third: vec4<u32>, s: u32) -> vec4<u32> {
    let two = (low >> vec4<u32>(((s >> 1u) & 3u) * 2u)) & vec4<u32>(0x03030303u);
    let bit = ((third >> vec4<u32>(s >> 1u)) & vec4<u32>(0x01010101u)) << vec4<u32>(2u);
    return minus(two | bit, 4u);
}

// Pair p: vector p / 2 of the low bits, their lower or upper four.
fn q3_k_at(p: u32) -> vec2<u32> {
    let first = (p >> 2u) * 8u + (p & 1u) * 4u + ((p >> 1u) & 1u);
    return vec2<u32>(first, first + 2u);
}

fn q3_k_pair(block: u32, p: u32) -> Pair {
    let at = q3_k_at(p);
    let low = q3_k_low(block, p >> 1u);
    let third = q3_k_third(block, (p >> 1u) & 1u);
    let scale = vec2<f32>(q3_k_scale(block, at.x), q3_k_scale(block, at.y));
    return Pair(scale, vec2<f32>(0.0), q3_k_bits(low, third, at.x), q3_k_bits(low, third, at.y));
}

fn q3_k_unit(block: u32, s: u32) -> Unit {
    let low = q3_k_low(block, (s >> 3u) * 2u + (s & 1u));
    return Unit(q3_k_scale(block, s), 0.0, q3_k_bits(low, q3_k_third(block, s & 1u), s));
}
