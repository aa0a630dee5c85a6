// Values 2 i and 2 i + 1 of a V row.
fn v2(row: u32, i: u32) -> vec2<f32> {
    let at = row * DV + 2u * i;
    return bitcast<vec2<f32>>(vec2<u32>(cache_v[at], cache_v[at + 1u]));
}
