// Values 4 i to 4 i + 3 of a K row.
fn k4(row: u32, i: u32) -> vec4<f32> {
    let at = row * DK + 4u * i;
    return bitcast<vec4<f32>>(vec4<u32>(cache_k[at], cache_k[at + 1u], cache_k[at + 2u], cache_k[at + 3u]));
}
