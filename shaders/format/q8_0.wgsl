// Groups of 8 blocks: quants 8 x 32 bytes, scales 8 x f16. value = d * q.
const Q8_0_LEN: u32 = 32u;
const Q8_0_PAIRS: u32 = 1u;
const Q8_0_BIASED: bool = false;

fn q8_0_quants(block: u32, u: u32) -> vec4<u32> { return word4((block >> 3u) * 17u + (block & 7u) * 2u + u); }

fn q8_0_scale(block: u32) -> f32 {
    return float_at(word((block >> 3u) * 68u + 64u + ((block & 7u) >> 1u)), block & 1u);
}

fn q8_0_at(p: u32) -> vec2<u32> { return vec2<u32>(0u, 1u); }

fn q8_0_pair(block: u32, p: u32) -> Pair {
    let d = q8_0_scale(block);
    return Pair(vec2<f32>(d), vec2<f32>(0.0), q8_0_quants(block, 0u), q8_0_quants(block, 1u));
}

fn q8_0_unit(block: u32, u: u32) -> Unit { return Unit(q8_0_scale(block), 0.0, q8_0_quants(block, u)); }
