// The two values of the pair that value j belongs to, and its number.
fn rope_pair(j: u32, n_rot: u32) -> vec3<u32> {
    return vec3<u32>(j & ~1u, j | 1u, j / 2u);
}
