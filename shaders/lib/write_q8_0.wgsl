// Blocks of 32 values as bytes, all rows first; then the scales, two in a word: so a unit is two blocks.
const BLOCKS: u32 = (DIM + 31u) / 32u;
const ROW_UNITS: u32 = (BLOCKS + 1u) / 2u;

fn value(i: u32) -> f32 {
    if (i < DIM) {
        return row_value(i);
    }
    return 0.0;
}

// Write a block; gives its scale.
fn write_block(block: u32, row: u32) -> f32 {
    if (block >= BLOCKS) {
        return 0.0;
    }
    var largest = 0.0;
    for (var i = 0u; i < 32u; i += 1u) {
        largest = max(largest, abs(value(block * 32u + i)));
    }
    let scale = largest / 127.0;
    var inverse = 0.0;
    if (scale > 0.0) {
        inverse = 1.0 / scale;
    }
    for (var w = 0u; w < 8u; w += 1u) {
        let i = block * 32u + 4u * w;
        let four = vec4<f32>(value(i), value(i + 1u), value(i + 2u), value(i + 3u));
        put((row * BLOCKS + block) * 8u + w, pack4xI8(vec4<i32>(round(four * inverse))));
    }
    return scale;
}

fn write_unit(unit: u32, row: u32) {
    let scales = vec2<f32>(write_block(2u * unit, row), write_block(2u * unit + 1u, row));
    put(scales_at() + row * ROW_UNITS + unit, pack2x16float(scales));
}
