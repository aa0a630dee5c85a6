// Blocks of 32 values as nibbles (value j with value j + 16 in a byte), all rows first; then scale and minimum of each block
// in a word.
fn q4_1_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let q = nibbles(of_v, (row * blocks_of(of_v) + i / 8u) * 4u, i);
    let scale = scale_and_min(of_v, row, i / 8u);
    return vec4<f32>(unpack4xU8(q)) * scale.x + scale.y;
}

fn q4_1_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return half_of(q4_1_four(of_v, row, i / 2u), i);
}

// Writing.
fn write_block(block: u32, row: u32) -> vec2<f32> {
    let range = extremes(block * 32u);
    let scale = (range.y - range.x) / 15.0;
    put_quants((row * BLOCKS + block) * 4u, block * 32u, Rounding(range.x, inverse_of(scale), 0.5, 15u));
    return vec2<f32>(scale, range.x);
}
