// Blocks of 32 values: four words of nibbles (value j with value j + 16 in a byte) and one of the fifth bits, all rows first;
// then the scales, two in a word.
fn q5_0_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let at = (row * blocks_of(of_v) + i / 8u) * 5u;
    let q = nibbles(of_v, at, i) | fifths(of_v, at + 4u, i);
    return (vec4<f32>(unpack4xU8(q)) - 16.0) * half_scale(of_v, row, i / 8u);
}

fn q5_0_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return half_of(q5_0_four(of_v, row, i / 2u), i);
}

// Writing.
// The value furthest from zero becomes -16.
fn write_block(block: u32, row: u32) -> f32 {
    let scale = furthest(block * 32u) / -16.0;
    let at = (row * BLOCKS + block) * 5u;
    put(at + 4u, put_quants(at, block * 32u, Rounding(0.0, inverse_of(scale), 16.5, 31u)));
    return scale;
}
