// Blocks as they are, 9 vectors: header, then quants. value = (d * sc) * q - (dmin * m), sub-blocks of 32: vector 1 + j holds
// half j % 2 of sub-block j / 2 * 2 in its low nibbles and of the one after in its high nibbles.
const Q4_K_LEN: u32 = 256u;
const Q4_K_PAIRS: u32 = 8u;
const Q4_K_BIASED: bool = true;

fn q4_k_at(j: u32) -> vec2<u32> {
    let first = (j >> 1u) * 4u + (j & 1u);
    return vec2<u32>(first, first + 2u);
}

fn q4_k_pair(block: u32, j: u32) -> Pair {
    let v = word4(block * 9u + 1u + j);
    let scales = six_bit_scales(word4(block * 9u), j >> 1u);
    return Pair(scales.xy, scales.zw, low_nibbles(v), high_nibbles(v));
}

fn q4_k_unit(block: u32, u: u32) -> Unit {
    let upper = (u >> 1u) & 1u;
    let v = word4(block * 9u + 1u + (u >> 2u) * 2u + (u & 1u));
    let scales = six_bit_scales(word4(block * 9u), u >> 2u);
    let d = select(scales.xz, scales.yw, upper == 1u);
    return Unit(d.x, d.y, low_nibbles(v >> vec4<u32>(4u * upper)));
}
