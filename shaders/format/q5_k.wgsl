// Blocks as they are, 11 vectors: header, two of fifth bits (bit s of a byte: sub-block s), quants as Q4_K has them.
// value = (d * sc) * q - (dmin * m).
const Q5_K_LEN: u32 = 256u;
const Q5_K_PAIRS: u32 = 8u;
const Q5_K_BIASED: bool = true;

fn q5_k_fifth(bits: vec4<u32>, s: u32) -> vec4<u32> {
    return ((bits >> vec4<u32>(s)) & vec4<u32>(0x01010101u)) << vec4<u32>(4u);
}

fn q5_k_at(j: u32) -> vec2<u32> {
    let first = (j >> 1u) * 4u + (j & 1u);
    return vec2<u32>(first, first + 2u);
}

fn q5_k_pair(block: u32, j: u32) -> Pair {
    let v = word4(block * 11u + 3u + j);
    let bits = word4(block * 11u + 1u + (j & 1u));
    let scales = six_bit_scales(word4(block * 11u), j >> 1u);
    let s = (j >> 1u) * 2u;
    let a = low_nibbles(v) | q5_k_fifth(bits, s);
    return Pair(scales.xy, scales.zw, a, high_nibbles(v) | q5_k_fifth(bits, s + 1u));
}

fn q5_k_unit(block: u32, u: u32) -> Unit {
    let upper = (u >> 1u) & 1u;
    let v = word4(block * 11u + 3u + (u >> 2u) * 2u + (u & 1u));
    let bits = word4(block * 11u + 1u + (u & 1u));
    let scales = six_bit_scales(word4(block * 11u), u >> 2u);
    let d = select(scales.xz, scales.yw, upper == 1u);
    return Unit(d.x, d.y, low_nibbles(v >> vec4<u32>(4u * upper)) | q5_k_fifth(bits, u >> 1u));
}
