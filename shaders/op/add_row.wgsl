// A bias added to every row.
struct Params {
    a: u32,
    bias: u32,
    out: u32,
    len: u32,
    row: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i < p.len) {
        store(p.out + i, load(p.a + i) + vectors[p.bias + i % p.row]);
    }
}
