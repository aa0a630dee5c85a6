// Groups of 4 blocks: quants 4 x 16 bytes, scale and minimum 4 x 2 f16. value = d * q + m.
const Q4_1_LEN: u32 = 32u;
const Q4_1_PAIRS: u32 = 1u;
const Q4_1_BIASED: bool = true;

fn q4_1_quants(block: u32) -> vec4<u32> { return word4((block >> 2u) * 5u + (block & 3u)); }

fn q4_1_scale(block: u32) -> vec2<f32> { return unpack2x16float(word((block >> 2u) * 20u + 16u + (block & 3u))); }

fn q4_1_at(p: u32) -> vec2<u32> { return vec2<u32>(0u, 1u); }

fn q4_1_pair(block: u32, p: u32) -> Pair {
    let v = q4_1_quants(block);
    let d = q4_1_scale(block);
    return Pair(d.xx, d.yy, low_nibbles(v), high_nibbles(v));
}

fn q4_1_unit(block: u32, u: u32) -> Unit {
    let d = q4_1_scale(block);
    return Unit(d.x, d.y, low_nibbles(q4_1_quants(block) >> vec4<u32>(4u * u)));
}
