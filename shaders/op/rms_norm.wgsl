// x / sqrt(mean(x^2) + eps) * weight: a workgroup a row.
struct Params {
    x: u32,
    weight: u32,
    out: u32,
    rows: u32,
    row: u32,
    eps: f32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let r = group(at);
    let first = r * p.row;
    let end = select(0u, p.row, r < p.rows);
    var squares = 0.0;
    for (var i = at.local; i < end; i += WG) {
        let x = load(p.x + first + i);
        squares += x * x;
    }
    let mean = reduce_add(squares, at) / f32(p.row);
    let scale = inverseSqrt(mean + p.eps);
    for (var i = at.local; i < end; i += WG) {
        store(p.out + first + i, load(p.x + first + i) * scale * vectors[p.weight + i]);
    }
}
