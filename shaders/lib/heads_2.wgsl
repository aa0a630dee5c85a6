// One value for each head that is computed at once: two heads.
alias Heads = vec2<f32>;
const HEADS: u32 = 2u;

fn of_head(value: Heads, h: u32) -> f32 {
    return select(value.y, value.x, h == 0u);
}

// The values at `i` of `used` heads, `stride` words apart.
fn load_heads(i: u32, stride: u32, used: u32) -> Heads {
    var heads = Heads(load(i), 0.0);
    if (used > 1u) {
        heads.y = load(i + stride);
    }
    return heads;
}

fn store_heads(i: u32, stride: u32, used: u32, value: Heads) {
    store(i, value.x);
    if (used > 1u) {
        store(i + stride, value.y);
    }
}
