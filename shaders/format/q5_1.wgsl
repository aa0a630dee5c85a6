// Groups of 2 blocks: low bits 2 x 16 bytes, scale and minimum 2 x 2 f16, fifth bits 2 x u32. value = d * q + m.
const Q5_1_LEN: u32 = 32u;
const Q5_1_PAIRS: u32 = 1u;
const Q5_1_BIASED: bool = true;

fn q5_1_low(block: u32) -> vec4<u32> { return word4((block >> 1u) * 3u + (block & 1u)); }

// Scale, minimum and fifth bits.
fn q5_1_rest(block: u32) -> vec2<u32> {
    let at = word4((block >> 1u) * 3u + 2u);
    return select(at.xz, at.yw, (block & 1u) == 1u);
}

fn q5_1_at(p: u32) -> vec2<u32> { return vec2<u32>(0u, 1u); }

fn q5_1_pair(block: u32, p: u32) -> Pair {
    let v = q5_1_low(block);
    let rest = q5_1_rest(block);
    let d = unpack2x16float(rest.x);
    return Pair(d.xx, d.yy, low_nibbles(v) | fifth_bits(rest.y), high_nibbles(v) | fifth_bits(rest.y >> 16u));
}

fn q5_1_unit(block: u32, u: u32) -> Unit {
    let rest = q5_1_rest(block);
    let d = unpack2x16float(rest.x);
    let low = low_nibbles(q5_1_low(block) >> vec4<u32>(4u * u));
    return Unit(d.x, d.y, low | fifth_bits(rest.y >> (16u * u)));
}
