// Values of each row at indices.
struct Params {
    x: u32,
    ids: u32,
    out: u32,
    len: u32,
    row: u32,
    used: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i < p.len) {
        let j = min(id(p.ids + i), p.row - 1u);
        store(p.out + i, load(p.x + i / p.used * p.row + j));
    }
}
