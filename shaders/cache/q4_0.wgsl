// Blocks of 32 values as nibbles (value j with value j + 16 in a byte), all rows first; then the scales, two in a word.
fn q4_0_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let q = nibbles(of_v, (row * blocks_of(of_v) + i / 8u) * 4u, i);
    return (vec4<f32>(unpack4xU8(q)) - 8.0) * half_scale(of_v, row, i / 8u);
}

fn q4_0_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return half_of(q4_0_four(of_v, row, i / 2u), i);
}

// Writing.
// The value furthest from zero becomes -8.
fn write_block(block: u32, row: u32) -> f32 {
    let scale = furthest(block * 32u) / -8.0;
    put_quants((row * BLOCKS + block) * 4u, block * 32u, Rounding(0.0, inverse_of(scale), 8.5, 15u));
    return scale;
}
