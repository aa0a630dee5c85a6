// A word is a value.
fn f32_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let at = row * row_len(of_v) + 4u * i;
    let words = vec4<u32>(cached(of_v, at), cached(of_v, at + 1u), cached(of_v, at + 2u), cached(of_v, at + 3u));
    return bitcast<vec4<f32>>(words);
}

fn f32_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    let at = row * row_len(of_v) + 2u * i;
    return bitcast<vec2<f32>>(vec2<u32>(cached(of_v, at), cached(of_v, at + 1u)));
}

// Writing.
const ROW_UNITS: u32 = DIM;

fn write_unit(unit: u32, row: u32) {
    put(row * DIM + unit, bitcast<u32>(row_value(unit)));
}
