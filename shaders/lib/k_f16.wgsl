// Values 4 i to 4 i + 3 of a K row.
fn k4(row: u32, i: u32) -> vec4<f32> {
    let at = row * (DK / 2u) + 2u * i;
    return vec4<f32>(unpack2x16float(cache_k[at]), unpack2x16float(cache_k[at + 1u]));
}
