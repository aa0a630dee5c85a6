// The first n_rot values of every head turned, in pairs of neighbours or of halves.
struct Params {
    x: u32,
    table: u32,
    out: u32,
    len: u32,
    row: u32,
    heads: u32,
    n_rot: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i >= p.len) {
        return;
    }
    let r = i / p.row;
    let j = i % p.row;
    if (j >= p.n_rot) {
        store(p.out + i, load(p.x + i));
        return;
    }
    let pair = rope_pair(j, p.n_rot);
    let angle = p.table + r / p.heads * p.n_rot + 2u * pair.z;
    let first = p.x + r * p.row;
    let turned = turn(vec2<f32>(load(first + pair.x), load(first + pair.y)), vec2<f32>(load(angle), load(angle + 1u)));
    store(p.out + i, select(turned.y, turned.x, j == pair.x));
}
