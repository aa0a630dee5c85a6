// What the parts of the positions gave, brought together: a thread a value of a head.
struct Params {
    out: u32,
    tokens: u32,
    parts: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let i = group(at) * WG + at.local;
    if (i >= p.tokens * KV_HEADS * GROUP * DV) {
        return;
    }
    let d = i % DV;
    let head = i / DV % (KV_HEADS * GROUP);
    let token = i / DV / (KV_HEADS * GROUP);
    let of_group = head % GROUP;
    let first = ((token * KV_HEADS + head / GROUP) * CHUNKS + of_group / HEADS) * p.parts;
    let h = of_group % HEADS;
    var largest = -1e30;
    for (var part = 0u; part < p.parts; part += 1u) {
        largest = max(largest, scratch[((first + part) * (DV + 2u) + DV) * HEADS + h]);
    }
    var sum = 0.0;
    var total = 0.0;
    for (var part = 0u; part < p.parts; part += 1u) {
        let at = (first + part) * (DV + 2u);
        let factor = exp(scratch[(at + DV) * HEADS + h] - largest);
        sum += factor * scratch[(at + d) * HEADS + h];
        total += factor * scratch[(at + DV + 1u) * HEADS + h];
    }
    store(p.out + i, select(0.0, sum / total, total > 0.0));
}
