// F16: four weights, beginning at weight 4 i.
fn f16_float4(i: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(word(2u * i)), unpack2x16float(word(2u * i + 1u)));
}
