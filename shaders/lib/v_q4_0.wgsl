const V_BLOCKS: u32 = (DV + 31u) / 32u;

// Values 2 i and 2 i + 1 of a V row: of a block, the first half are the lower nibbles.
fn v2(row: u32, i: u32) -> vec2<f32> {
    let block = i / 16u;
    let scales = unpack2x16float(cache_v[p.v_scales + row * ((V_BLOCKS + 1u) / 2u) + block / 2u]);
    let scale = select(scales.y, scales.x, (block & 1u) == 0u);
    // Which pair of the block's half.
    let pair = i & 7u;
    let bytes = cache_v[(row * V_BLOCKS + block) * 4u + pair / 2u];
    let four = unpack4xU8((bytes >> ((i >> 1u) & 4u)) & 0x0f0f0f0fu);
    return (vec2<f32>(select(four.zw, four.xy, (pair & 1u) == 0u)) - 8.0) * scale;
}
