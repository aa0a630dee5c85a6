// Four values; i counts fours from the start of the matrix.
fn f16_float4(i: u32) -> vec4<f32> {
    let eight = word4(i >> 1u);
    let four = select(eight.xy, eight.zw, (i & 1u) == 1u);
    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));
}
