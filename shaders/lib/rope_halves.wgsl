// The two values of the pair that value j belongs to, and its number.
fn rope_pair(j: u32, n_rot: u32) -> vec3<u32> {
    let half = n_rot / 2u;
    let pair = select(j - half, j, j < half);
    return vec3<u32>(pair, pair + half, pair);
}

// The two values of a pair.
fn pair_at(pair: u32, n_rot: u32) -> vec2<u32> {
    return vec2<u32>(pair, pair + n_rot / 2u);
}
