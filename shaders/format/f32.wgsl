// Four values; i counts fours from the start of the matrix.
fn f32_float4(i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(word4(i)); }
