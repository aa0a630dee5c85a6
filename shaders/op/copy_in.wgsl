// What the host has computed for the batch, brought to its place among the intermediates.
struct Params {
    start: u32,
    out: u32,
    len: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i < p.len) {
        arena[p.out + i] = inputs[p.start + i];
    }
}
