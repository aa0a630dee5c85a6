// A word is two values; the last of an odd row stands with a zero.
fn f16_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let at = row * ((row_len(of_v) + 1u) / 2u) + 2u * i;
    return vec4<f32>(unpack2x16float(cached(of_v, at)), unpack2x16float(cached(of_v, at + 1u)));
}

fn f16_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return unpack2x16float(cached(of_v, row * ((row_len(of_v) + 1u) / 2u) + i));
}

// Writing.
const ROW_UNITS: u32 = (DIM + 1u) / 2u;

fn write_unit(unit: u32, row: u32) {
    put(row * ROW_UNITS + unit, pack2x16float(vec2<f32>(value(2u * unit), value(2u * unit + 1u))));
}
