// Groups of 8 blocks: low bits 8 x 128 bytes, high bits 8 x 64 bytes, scales 8 x 16 bytes, their scales 8 x f16.
// value = (d * sc) * (q - 32), sub-blocks of 16: the low bits of sub-block s lie in vector s / 8 * 4 + s % 4, nibble s / 4 % 2, its
// high bits in vector s / 8 * 2 + s % 2 from bit s / 2 % 4 * 2.
const Q6_K_LEN: u32 = 256u;
const Q6_K_PAIRS: u32 = 8u;
const Q6_K_BIASED: bool = false;

fn q6_k_low(block: u32, v: u32) -> vec4<u32> { return word4((block >> 3u) * 105u + (block & 7u) * 8u + v); }

fn q6_k_high(block: u32, v: u32) -> vec4<u32> { return word4((block >> 3u) * 105u + 64u + (block & 7u) * 4u + v); }

// The word with the scales of sub-blocks 4q to 4q + 3.
fn q6_k_scales(block: u32, q: u32) -> u32 { return word((block >> 3u) * 420u + 384u + (block & 7u) * 4u + q); }

fn q6_k_d(block: u32) -> f32 {
    return float_at(word((block >> 3u) * 420u + 416u + ((block & 7u) >> 1u)), block & 1u);
}

fn q6_k_two(high: vec4<u32>, shift: u32) -> vec4<u32> {
    return ((high >> vec4<u32>(shift)) & vec4<u32>(0x03030303u)) << vec4<u32>(4u);
}

// Pair j: the two nibbles of vector j of the low bits.
fn q6_k_at(j: u32) -> vec2<u32> {
    let first = (j >> 2u) * 8u + (j & 3u);
    return vec2<u32>(first, first + 4u);
}

fn q6_k_pair(block: u32, j: u32) -> Pair {
    let half_block = j >> 2u;
    let low = q6_k_low(block, j);
    let high = q6_k_high(block, half_block * 2u + (j & 1u));
    let shift = j & 2u;
    let s = vec2<i32>(
        signed_byte_at(q6_k_scales(block, half_block * 2u), j & 3u),
        signed_byte_at(q6_k_scales(block, half_block * 2u + 1u), j & 3u),
    );
    let a = minus(low_nibbles(low) | q6_k_two(high, shift), 32u);
    let b = minus(high_nibbles(low) | q6_k_two(high, shift + 4u), 32u);
    return Pair(q6_k_d(block) * vec2<f32>(s), vec2<f32>(0.0), a, b);
}

fn q6_k_unit(block: u32, s: u32) -> Unit {
    let low = low_nibbles(q6_k_low(block, (s >> 3u) * 4u + (s & 3u)) >> vec4<u32>(((s >> 2u) & 1u) * 4u));
    let high = q6_k_two(q6_k_high(block, (s >> 3u) * 2u + (s & 1u)), ((s >> 1u) & 3u) * 2u);
    let scale = q6_k_d(block) * f32(signed_byte_at(q6_k_scales(block, s >> 2u), s & 3u));
    return Unit(scale, 0.0, minus(low | high, 32u));
}
