// A matrix, in the planes of its format: as vectors of four words, and as words.
@group(0) @binding(3) var<storage, read> weight4: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> weight1: array<u32>;

fn word4(i: u32) -> vec4<u32> {
    return weight4[i];
}

fn word(i: u32) -> u32 {
    return weight1[i];
}
