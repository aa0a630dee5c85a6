// A word is two values; the last of an odd row stands with a zero.
const ROW_UNITS: u32 = (DIM + 1u) / 2u;

fn write_unit(unit: u32, row: u32) {
    let i = 2u * unit;
    var second = 0.0;
    if (i + 1u < DIM) {
        second = row_value(i + 1u);
    }
    put(row * ROW_UNITS + unit, pack2x16float(vec2<f32>(row_value(i), second)));
}
