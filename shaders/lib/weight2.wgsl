// Two matrices of one format, in its groups.
@group(0) @binding(3) var<storage, read> weight4: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> weight1: array<u32>;
@group(0) @binding(9) var<storage, read> second4: array<vec4<u32>>;
@group(0) @binding(10) var<storage, read> second1: array<u32>;

// Which matrix is read.
var<private> part: u32;
fn word4(i: u32) -> vec4<u32> {
    if (part == 0u) { return weight4[i]; }
    return second4[i];
}
fn word(i: u32) -> u32 {
    if (part == 0u) { return weight1[i]; }
    return second1[i];
}
