// x / sum over each row: a workgroup a row.
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
    var sum = 0.0;
    for (var i = at.local; i < end; i += WG) {
        sum += load(p.x + first + i);
    }
    sum = reduce_add(sum, at);
    for (var i = at.local; i < end; i += WG) {
        store(p.out + first + i, load(p.x + first + i) / sum);
    }
}
