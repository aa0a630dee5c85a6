// Norms and biases, many in a buffer.
@group(0) @binding(5) var<storage, read> vectors: array<f32>;
