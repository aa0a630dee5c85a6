// Blocks of 32 values as indices of four bits into the codebook (value j with value j + 16 in a byte), all rows first; then
// the scales, two in a word.
fn iq4_nl_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let indices = nibbles(of_v, (row * blocks_of(of_v) + i / 8u) * 4u, i);
    return vec4<f32>(unpack4xI8(codebook(vec4<u32>(indices)).x)) * half_scale(of_v, row, i / 8u);
}

fn iq4_nl_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return half_of(iq4_nl_four(of_v, row, i / 2u), i);
}

// Writing.
// The index of the entry nearest to a value in units of the scale: how many midpoints between neighbours are not above it.
// Doubled, so that the midpoints are integers.
fn nearest_index(x: f32) -> u32 {
    let doubled = vec4<f32>(x + x);
    let passed = vec4<u32>(doubled >= vec4<f32>(-231.0, -187.0, -148.0, -114.0))
        + vec4<u32>(doubled >= vec4<f32>(-84.0, -57.0, -32.0, -9.0))
        + vec4<u32>(doubled >= vec4<f32>(14.0, 38.0, 63.0, 91.0))
        + vec4<u32>(doubled >= vec4<f32>(122.0, 158.0, 202.0, 1e30));
    return passed.x + passed.y + passed.z + passed.w;
}

// What an index stands for, in units of the scale.
fn entry(index: u32) -> f32 {
    return f32(unpack4xI8(codebook(vec4<u32>(index)).x).x);
}

// The value furthest from zero becomes -127; then the scale is fitted to the indices by least squares, weighted by the square
// of the value.
fn write_block(block: u32, row: u32) -> f32 {
    let first = block * 32u;
    let most = furthest(first);
    // As the encoder of the file's blocks: what is smaller is a block of zeros.
    let is_zero = abs(most) < 1e-15;
    var inverse = 0.0;
    if (!is_zero) {
        inverse = 1.0 / (most / -127.0);
    }
    var products = 0.0;
    var squares = 0.0;
    for (var w = 0u; w < 4u; w += 1u) {
        var word = 0u;
        for (var j = 0u; j < 4u; j += 1u) {
            let x = vec2<f32>(value(first + 4u * w + j), value(first + 4u * w + j + 16u));
            let low = nearest_index(x.x * inverse);
            let high = nearest_index(x.y * inverse);
            word |= (low | (high << 4u)) << (8u * j);
            let q = vec2<f32>(entry(low), entry(high));
            products += dot(x * x * q, x);
            squares += dot(x * x * q, q);
        }
        put((row * BLOCKS + block) * 4u + w, word);
    }
    if (is_zero || squares == 0.0) {
        return 0.0;
    }
    return products / squares;
}
