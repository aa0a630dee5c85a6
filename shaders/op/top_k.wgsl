// The k largest of each row, largest first, ties to the lower index: every value counts those that come before it.
struct Params {
    x: u32,
    out: u32,
    len: u32,
    row: u32,
    k: u32,
}
var<immediate> p: Params;

// Integers in the total order of the floats that they are made of.
fn ordered(bits: u32) -> u32 {
    return select(~bits, bits | 0x80000000u, bits < 0x80000000u);
}

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i >= p.len) {
        return;
    }
    let r = i / p.row;
    let j = i % p.row;
    let first = p.x + r * p.row;
    let own = ordered(arena[first + j]);
    var before = 0u;
    for (var other = 0u; other < p.row; other += 1u) {
        let value = ordered(arena[first + other]);
        before += select(0u, 1u, value > own || (value == own && other < j));
    }
    if (before < p.k) {
        arena[p.out + r * p.k + before] = j;
    }
}
