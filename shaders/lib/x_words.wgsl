// Activations one by one: rows may begin anywhere, and what lies behind the end of a row of k counts as zero.
fn x1(row: u32, i: u32, k: u32) -> f32 { return select(0.0, load(row + min(i, k - 1u)), i < k); }
fn x4(row: u32, i: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(x1(row, i, k), x1(row, i + 1u, k), x1(row, i + 2u, k), x1(row, i + 3u, k));
}
fn norm1(at: u32, i: u32, k: u32) -> f32 { return vector_at(at + min(i, k - 1u)); }
fn norm4(at: u32, i: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(norm1(at, i, k), norm1(at, i + 1u, k), norm1(at, i + 2u, k), norm1(at, i + 3u, k));
}
