const V_BLOCKS: u32 = (DV + 31u) / 32u;

// Values 2 i and 2 i + 1 of a V row.
fn v2(row: u32, i: u32) -> vec2<f32> {
    let block = i / 16u;
    let scales = unpack2x16float(cache_v[p.v_scales + row * ((V_BLOCKS + 1u) / 2u) + block / 2u]);
    let scale = select(scales.y, scales.x, (block & 1u) == 0u);
    let four = vec4<f32>(unpack4xI8(cache_v[row * V_BLOCKS * 8u + i / 2u]));
    return select(four.zw, four.xy, (i & 1u) == 0u) * scale;
}
