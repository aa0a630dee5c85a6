// One value for each head that is computed at once: four heads.
alias Heads = vec4<f32>;
const HEADS: u32 = 4u;

fn of_head(value: Heads, h: u32) -> f32 {
    let pair = select(value.zw, value.xy, h < 2u);
    return select(pair.y, pair.x, (h & 1u) == 0u);
}

// The values at `i` of `used` heads, `stride` words apart.
fn load_heads(i: u32, stride: u32, used: u32) -> Heads {
    var heads = Heads(load(i), 0.0, 0.0, 0.0);
    if (used > 1u) {
        heads.y = load(i + stride);
    }
    if (used > 2u) {
        heads.z = load(i + 2u * stride);
    }
    if (used > 3u) {
        heads.w = load(i + 3u * stride);
    }
    return heads;
}

fn store_heads(i: u32, stride: u32, used: u32, value: Heads) {
    store(i, value.x);
    if (used > 1u) {
        store(i + stride, value.y);
    }
    if (used > 2u) {
        store(i + 2u * stride, value.z);
    }
    if (used > 3u) {
        store(i + 3u * stride, value.w);
    }
}
