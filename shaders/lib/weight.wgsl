// The matrix, in the groups of its format.
@group(0) @binding(3) var<storage, read> weight4: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> weight1: array<u32>;

// Which matrix is read; here there is one.
var<private> part: u32;
fn word4(i: u32) -> vec4<u32> { return weight4[i]; }
fn word(i: u32) -> u32 { return weight1[i]; }
