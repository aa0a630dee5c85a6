// Blocks of 32 values as nibbles (value j with value j + 16 in a byte), all rows first; then the scales, two in a word: so a
// unit is two blocks.
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
    // The value furthest from zero becomes -8.
    var furthest = 0.0;
    for (var i = 0u; i < 32u; i += 1u) {
        let v = value(block * 32u + i);
        furthest = select(furthest, v, abs(v) > abs(furthest));
    }
    let scale = furthest / -8.0;
    var inverse = 0.0;
    if (scale != 0.0) {
        inverse = 1.0 / scale;
    }
    for (var w = 0u; w < 4u; w += 1u) {
        var word = 0u;
        for (var j = 0u; j < 4u; j += 1u) {
            let i = block * 32u + 4u * w + j;
            let low = min(u32(value(i) * inverse + 8.5), 15u);
            let high = min(u32(value(i + 16u) * inverse + 8.5), 15u);
            word |= (low | (high << 4u)) << (8u * j);
        }
        put((row * BLOCKS + block) * 4u + w, word);
    }
    return scale;
}

fn write_unit(unit: u32, row: u32) {
    let scales = vec2<f32>(write_block(2u * unit, row), write_block(2u * unit + 1u, row));
    put(scales_at() + row * ROW_UNITS + unit, pack2x16float(scales));
}
