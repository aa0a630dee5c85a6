// Two scales in a word, so a unit is two blocks.
const ROW_UNITS: u32 = (BLOCKS + 1u) / 2u;

fn write_unit(unit: u32, row: u32) {
    var scales = vec2<f32>(write_block(2u * unit, row), 0.0);
    if (2u * unit + 1u < BLOCKS) {
        scales.y = write_block(2u * unit + 1u, row);
    }
    put(scales_at() + row * ROW_UNITS + unit, pack2x16float(scales));
}
