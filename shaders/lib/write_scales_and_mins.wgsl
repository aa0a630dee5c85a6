// A scale and a minimum in a word: a unit is a block.
const ROW_UNITS: u32 = BLOCKS;

fn write_unit(unit: u32, row: u32) {
    put(scales_at() + row * ROW_UNITS + unit, pack2x16float(write_block(unit, row)));
}
