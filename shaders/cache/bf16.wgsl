// A word is two values, each the upper half of its binary32 form; the last of an odd row stands with a zero.
fn bf16_numbers(word: u32) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2<u32>(word << 16u, word & 0xffff0000u));
}

fn bf16_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let at = row * ((row_len(of_v) + 1u) / 2u) + 2u * i;
    return vec4<f32>(bf16_numbers(cached(of_v, at)), bf16_numbers(cached(of_v, at + 1u)));
}

fn bf16_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return bf16_numbers(cached(of_v, row * ((row_len(of_v) + 1u) / 2u) + i));
}

// Writing.
const ROW_UNITS: u32 = (DIM + 1u) / 2u;

// The nearest number, ties to even; a NaN becomes quiet.
fn bf16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return select(bits + 0x7fffu + ((bits >> 16u) & 1u), bits | 0x400000u, is_nan) >> 16u;
}

fn write_unit(unit: u32, row: u32) {
    put(row * ROW_UNITS + unit, bf16_bits(value(2u * unit)) | (bf16_bits(value(2u * unit + 1u)) << 16u));
}
