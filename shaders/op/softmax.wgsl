// exp(x - max) / sum over each row: a workgroup a row.
struct Params {
    x: u32,
    out: u32,
    rows: u32,
    row: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let r = group(at);
    let first = r * p.row;
    let end = select(0u, p.row, r < p.rows);
    var largest = -3.4e38;
    for (var i = at.local; i < end; i += WG) {
        largest = max(largest, load(p.x + first + i));
    }
    largest = reduce_max(largest, at);
    var sum = 0.0;
    for (var i = at.local; i < end; i += WG) {
        sum += exp(load(p.x + first + i) - largest);
    }
    sum = reduce_add(sum, at);
    for (var i = at.local; i < end; i += WG) {
        store(p.out + first + i, exp(load(p.x + first + i) - largest) / sum);
    }
}
