// F32 as it is: four weights, beginning at weight 4 i.
fn f32_float4(i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(word4(i));
}
