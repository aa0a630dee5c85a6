// Groups of 8 blocks: low bits 8 x 16 bytes, fifth bits 8 x u32, scales 8 x f16. value = d * (q - 16).
const Q5_0_LEN: u32 = 32u;
const Q5_0_PAIRS: u32 = 1u;
const Q5_0_BIASED: bool = false;

fn q5_0_low(block: u32) -> vec4<u32> { return word4((block >> 3u) * 11u + (block & 7u)); }

fn q5_0_fifth(block: u32) -> u32 { return word((block >> 3u) * 44u + 32u + (block & 7u)); }

fn q5_0_scale(block: u32) -> f32 {
    return float_at(word((block >> 3u) * 44u + 40u + ((block & 7u) >> 1u)), block & 1u);
}

fn q5_0_at(p: u32) -> vec2<u32> { return vec2<u32>(0u, 1u); }

fn q5_0_pair(block: u32, p: u32) -> Pair {
    let v = q5_0_low(block);
    let fifth = q5_0_fifth(block);
    let d = q5_0_scale(block);
    let a = minus(low_nibbles(v) | fifth_bits(fifth), 16u);
    let b = minus(high_nibbles(v) | fifth_bits(fifth >> 16u), 16u);
    return Pair(vec2<f32>(d), vec2<f32>(0.0), a, b);
}

fn q5_0_unit(block: u32, u: u32) -> Unit {
    let low = low_nibbles(q5_0_low(block) >> vec4<u32>(4u * u));
    return Unit(q5_0_scale(block), 0.0, minus(low | fifth_bits(q5_0_fifth(block) >> (16u * u)), 16u));
}
