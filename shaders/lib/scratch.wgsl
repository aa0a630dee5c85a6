// Memory that the dispatches of one op share.
@group(0) @binding(8) var<storage, read_write> scratch: array<f32>;
