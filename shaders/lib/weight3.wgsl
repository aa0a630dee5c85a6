// Three matrices of one format, in its groups.
@group(0) @binding(3) var<storage, read> weight4: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> weight1: array<u32>;
@group(0) @binding(9) var<storage, read> second4: array<vec4<u32>>;
@group(0) @binding(10) var<storage, read> second1: array<u32>;
@group(0) @binding(11) var<storage, read> third4: array<vec4<u32>>;
@group(0) @binding(12) var<storage, read> third1: array<u32>;

// Which matrix is read.
var<private> part: u32;
fn word4(i: u32) -> vec4<u32> {
    if (part == 0u) { return weight4[i]; }
    if (part == 1u) { return second4[i]; }
    return third4[i];
}
fn word(i: u32) -> u32 {
    if (part == 0u) { return weight1[i]; }
    if (part == 1u) { return second1[i]; }
    return third1[i];
}
