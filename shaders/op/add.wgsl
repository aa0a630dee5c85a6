// a + b.
struct Params {
    a: u32,
    b: u32,
    out: u32,
    len: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i < p.len) {
        store(p.out + i, load(p.a + i) + load(p.b + i));
    }
}
