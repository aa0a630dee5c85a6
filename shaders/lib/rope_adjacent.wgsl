// The two values of the pair that value j belongs to, and its number.
fn rope_pair(j: u32, n_rot: u32) -> vec3<u32> {
    return vec3<u32>(j & ~1u, j | 1u, j / 2u);
}

// The two values of a pair.
fn pair_at(pair: u32, n_rot: u32) -> vec2<u32> {
    return vec2<u32>(2u * pair, 2u * pair + 1u);
}
