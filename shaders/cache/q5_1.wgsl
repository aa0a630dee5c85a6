// Blocks of 32 values: four words of nibbles (value j with value j + 16 in a byte) and one of the fifth bits, all rows first;
// then scale and minimum of each block in a word.
fn q5_1_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let at = (row * blocks_of(of_v) + i / 8u) * 5u;
    let q = nibbles(of_v, at, i) | fifths(of_v, at + 4u, i);
    let scale = scale_and_min(of_v, row, i / 8u);
    return vec4<f32>(unpack4xU8(q)) * scale.x + scale.y;
}

fn q5_1_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return half_of(q5_1_four(of_v, row, i / 2u), i);
}

// Writing.
fn write_block(block: u32, row: u32) -> vec2<f32> {
    let range = extremes(block * 32u);
    let scale = (range.y - range.x) / 31.0;
    let at = (row * BLOCKS + block) * 5u;
    put(at + 4u, put_quants(at, block * 32u, Rounding(range.x, inverse_of(scale), 0.5, 31u)));
    return vec2<f32>(scale, range.x);
}
