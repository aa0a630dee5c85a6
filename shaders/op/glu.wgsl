// act(gate) * up.
struct Params {
    gate: u32,
    up: u32,
    out: u32,
    len: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i < p.len) {
        store(p.out + i, glu(load(p.gate + i), load(p.up + i)));
    }
}
