// Four values; i counts fours from the start of the matrix. A value is the upper half of a binary32 number.
fn bf16_float4(i: u32) -> vec4<f32> {
    let eight = word4(i >> 1u);
    let four = select(eight.xy, eight.zw, (i & 1u) == 1u);
    let upper = vec2<u32>(0xffff0000u);
    return bitcast<vec4<f32>>(vec4<u32>(four << vec2<u32>(16u), four & upper).xzyw);
}
