// What the batch brings.
@group(0) @binding(2) var<storage, read> inputs: array<u32>;
