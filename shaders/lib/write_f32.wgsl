// A word is a value.
const ROW_UNITS: u32 = DIM;

fn write_unit(unit: u32, row: u32) {
    put(row * DIM + unit, bitcast<u32>(row_value(unit)));
}
