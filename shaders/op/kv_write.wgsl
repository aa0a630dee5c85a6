// Rows of the batch rounded and written into a layer's K or V rows. How a row is cut into units, one a thread, and how
// one is rounded is the format's; where words go is the library's.
struct Params {
    x: u32,
    cells: u32,
    units: u32,
    heads: u32,
    capacity: u32,
    scales: u32,
}
var<immediate> p: Params;

// Where the row that this thread reads begins.
var<private> row_at: u32;

fn row_value(i: u32) -> f32 {
    return load(row_at + i);
}

fn scales_at() -> u32 {
    return p.scales;
}

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i >= p.units) {
        return;
    }
    let unit = i % ROW_UNITS;
    // Rows come token by token, head by head; in the cache a head's rows stand together.
    let r = i / ROW_UNITS;
    let cell = min(id(p.cells + r / p.heads), p.capacity - 1u);
    row_at = p.x + r * DIM;
    write_unit(unit, r % p.heads * p.capacity + cell);
}
