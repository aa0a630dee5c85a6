// Rows by number: out[i] = row ids[i] of the matrix. A thread decodes sixteen values.
struct Params {
    // Values of a row; blocks, or vectors of four floats, of a row.
    k: u32, stride: u32,
    // The first row of this part of the matrix, and its rows: others are left alone.
    first: u32, rows: u32,
    // The number of ids, and where they and the results begin.
    n: u32, ids_at: u32, out_at: u32,
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(at: At) {
    let units = (params.k + 15u) / 16u;
    let number = group(at) * WG + at.local;
    let i = number / units;
    let u = number % units;
    if (i >= params.n) { return; }
    // A number below the first row wraps around and is as far off as one behind the last.
    let row = id(params.ids_at + i) - params.first;
    if (row >= params.rows) { return; }
    let s = sixteen(row * params.stride, u, params.k);
    let out = params.out_at + i * params.k + 16u * u;
    let left = params.k - 16u * u;
    store_four(out, s.v0, left, 0u);
    store_four(out, s.v1, left, 4u);
    store_four(out, s.v2, left, 8u);
    store_four(out, s.v3, left, 12u);
}

// Values `at` to `at + 3` of sixteen, as far as the row has them.
fn store_four(out: u32, v: vec4<f32>, left: u32, at: u32) {
    if (at < left) { store(out + at, v.x); }
    if (at + 1u < left) { store(out + at + 1u, v.y); }
    if (at + 2u < left) { store(out + at + 2u, v.z); }
    if (at + 3u < left) { store(out + at + 3u, v.w); }
}
