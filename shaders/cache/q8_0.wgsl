// Blocks of 32 values as signed bytes, all rows first; then the scales, two in a word.
fn q8_0_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let q = cached(of_v, row * blocks_of(of_v) * 8u + i);
    return vec4<f32>(unpack4xI8(q)) * half_scale(of_v, row, i / 8u);
}

fn q8_0_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return half_of(q8_0_four(of_v, row, i / 2u), i);
}

// Writing.
fn write_block(block: u32, row: u32) -> f32 {
    let first = block * 32u;
    let scale = abs(furthest(first)) / 127.0;
    let inverse = inverse_of(scale);
    for (var w = 0u; w < 8u; w += 1u) {
        let i = first + 4u * w;
        let four = vec4<f32>(value(i), value(i + 1u), value(i + 2u), value(i + 3u));
        put((row * BLOCKS + block) * 8u + w, pack4xI8(vec4<i32>(round(four * inverse))));
    }
    return scale;
}
