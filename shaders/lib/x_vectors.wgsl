// Activations by vectors of four: rows begin at multiples of four words, and the matrix's rows end with an item.
fn x4(row: u32, i: u32, k: u32) -> vec4<f32> { return arena4[(row + i) >> 2u]; }
fn norm4(at: u32, i: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(vector_at(at + i), vector_at(at + i + 1u), vector_at(at + i + 2u), vector_at(at + i + 3u));
}
