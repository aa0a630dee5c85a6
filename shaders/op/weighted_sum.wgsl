// The weighted sum over a token's slots.
struct Params {
    x: u32,
    weights: u32,
    out: u32,
    len: u32,
    row: u32,
    slots: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i >= p.len) {
        return;
    }
    let token = i / p.row;
    let j = i % p.row;
    var sum = 0.0;
    for (var s = 0u; s < p.slots; s += 1u) {
        let slot = token * p.slots + s;
        sum += load(p.weights + slot) * load(p.x + slot * p.row + j);
    }
    store(p.out + i, sum);
}
