// The normalised Walsh-Hadamard transform of blocks of LEN values: a workgroup a block.
struct Params {
    x: u32,
    out: u32,
    blocks: u32,
}
var<immediate> p: Params;

var<workgroup> block: array<f32, LEN>;

@compute @workgroup_size(WG)
fn main(at: At) {
    let b = group(at);
    let end = select(0u, LEN, b < p.blocks);
    for (var i = at.local; i < end; i += WG) {
        block[i] = load(p.x + b * LEN + i);
    }
    for (var half = 1u; half < LEN; half *= 2u) {
        workgroupBarrier();
        for (var i = at.local; i < LEN / 2u; i += WG) {
            let low = i / half * 2u * half + i % half;
            let a = block[low];
            let c = block[low + half];
            block[low] = a + c;
            block[low + half] = a - c;
        }
    }
    workgroupBarrier();
    for (var i = at.local; i < end; i += WG) {
        store(p.out + b * LEN + i, block[i] * inverseSqrt(f32(LEN)));
    }
}
