// Values 2 i and 2 i + 1 of a V row.
fn v2(row: u32, i: u32) -> vec2<f32> {
    return unpack2x16float(cache_v[row * (DV / 2u) + i]);
}
