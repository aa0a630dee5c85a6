// Vectors of floats as signed bytes with a scale for each 32: d = max|x| / 127, q = round(x / d). A thread takes 32 values.
struct Params {
    // Blocks of 32 in a vector, and vectors.
    blocks: u32, n: u32,
    // Words of the arena: the vectors and from one to the next, all multiples of four; the results likewise.
    x_at: u32, x_stride: u32, out_at: u32, out_stride: u32,
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let number = group(at) * WG + at.local;
    let c = number / params.blocks;
    let block = number % params.blocks;
    if (c >= params.n) { return; }
    let x = (params.x_at + c * params.x_stride) / 4u + 8u * block;
    var most = vec4<f32>(0.0);
    for (var i = 0u; i < 8u; i += 1u) { most = max(most, abs(arena4[x + i])); }
    let largest = max(max(most.x, most.y), max(most.z, most.w));
    let factor = select(0.0, 127.0 / largest, largest > 0.0);
    let out = params.out_at + c * params.out_stride;
    for (var i = 0u; i < 8u; i += 1u) {
        let q = vec4<i32>(round(arena4[x + i] * factor)) & vec4<i32>(255);
        arena[out + 8u * block + i] = u32(q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u));
    }
    store(out + 8u * params.blocks + block, largest / 127.0);
}
