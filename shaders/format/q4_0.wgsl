// Groups of 8 blocks: quants 8 x 16 bytes, scales 8 x f16. value = d * (q - 8).
const Q4_0_LEN: u32 = 32u;
const Q4_0_PAIRS: u32 = 1u;
const Q4_0_BIASED: bool = false;

fn q4_0_quants(block: u32) -> vec4<u32> { return word4((block >> 3u) * 9u + (block & 7u)); }

fn q4_0_scale(block: u32) -> f32 {
    return float_at(word((block >> 3u) * 36u + 32u + ((block & 7u) >> 1u)), block & 1u);
}

fn q4_0_at(p: u32) -> vec2<u32> { return vec2<u32>(0u, 1u); }

fn q4_0_pair(block: u32, p: u32) -> Pair {
    let v = q4_0_quants(block);
    let d = q4_0_scale(block);
    return Pair(vec2<f32>(d), vec2<f32>(0.0), minus(low_nibbles(v), 8u), minus(high_nibbles(v), 8u));
}

fn q4_0_unit(block: u32, u: u32) -> Unit {
    return Unit(q4_0_scale(block), 0.0, minus(low_nibbles(q4_0_quants(block) >> vec4<u32>(4u * u)), 8u));
}
