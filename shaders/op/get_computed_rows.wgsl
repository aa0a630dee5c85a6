// Rows of a computed matrix, by number.
struct Params {
    x: u32,
    ids: u32,
    out: u32,
    len: u32,
    row: u32,
    rows: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i < p.len) {
        let r = min(id(p.ids + i / p.row), p.rows - 1u);
        arena[p.out + i] = arena[p.x + r * p.row + i % p.row];
    }
}
