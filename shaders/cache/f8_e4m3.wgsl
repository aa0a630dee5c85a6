// Floats of 8 bits (4 of exponent, 3 of mantissa), four in a word, behind the word of their row's scale.
fn f8_e4m3_numbers(codes: vec4<u32>) -> vec4<f32> {
    let size = codes & vec4<u32>(127u);
    // The same fields in binary32, where the exponent's bias is 120 more; below the smallest normal number steps of 2^-9.
    let normal = (size << vec4<u32>(20u)) + vec4<u32>(0x3c000000u);
    let small = bitcast<vec4<u32>>(vec4<f32>(size) * 0.001953125);
    let number = select(normal, small, (size < vec4<u32>(8u)));
    let or_nan = select(number, vec4<u32>(0x7fc00000u), (size == vec4<u32>(127u)));
    return bitcast<vec4<f32>>(or_nan | ((codes & vec4<u32>(128u)) << vec4<u32>(24u)));
}

fn f8_e4m3_four(of_v: bool, row: u32, i: u32) -> vec4<f32> {
    let at = row * (1u + (row_len(of_v) + 3u) / 4u);
    return f8_e4m3_numbers(unpack4xU8(cached(of_v, at + 1u + i))) * bitcast<f32>(cached(of_v, at));
}

fn f8_e4m3_two(of_v: bool, row: u32, i: u32) -> vec2<f32> {
    return half_of(f8_e4m3_four(of_v, row, i / 2u), i);
}

// Writing.
const ROW_UNITS: u32 = (DIM + 3u) / 4u;

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

// The code of the nearest number, ties to even; what is larger than 448 becomes that.
fn f8_e4m3_code(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    // Twenty bits of the mantissa fall away; a carry into the exponent is right as it is.
    var code = ((size + 0x7ffffu + ((size >> 20u) & 1u)) >> 20u) - 960u;
    if (size < 0x3c800000u) {
        // Below 2^-6.
        code = u32(round(abs(x) * 512.0));
    }
    if (size >= 0x43e00000u) {
        code = 126u;
    }
    return code | ((bits >> 24u) & 128u);
}

// Every unit finds the row's largest value by itself: a row is short, and units do not wait for each other.
fn write_unit(unit: u32, row: u32) {
    var largest = 0.0;
    for (var i = 0u; i < DIM; i += 1u) {
        let x = row_value(i);
        if (is_finite(x)) {
            largest = max(largest, abs(x));
        }
    }
    let scale = largest / 448.0;
    let at = row * (1u + ROW_UNITS);
    if (unit == 0u) {
        put(at, bitcast<u32>(scale));
    }
    var word = 0u;
    for (var j = 0u; j < 4u; j += 1u) {
        let x = value(4u * unit + j);
        // What is not finite becomes NaN, so that it shows.
        var code = 127u;
        if (is_finite(x)) {
            code = 0u;
            if (scale > 0.0) {
                code = f8_e4m3_code(x / scale);
            }
        }
        word |= code << (8u * j);
    }
    put(at + 1u + unit, word);
}
