// One value for each head that is computed at once: one head.
alias Heads = f32;
const HEADS: u32 = 1u;

fn of_head(value: Heads, h: u32) -> f32 {
    return value;
}

// The values at `i` of `used` heads, `stride` words apart.
fn load_heads(i: u32, stride: u32, used: u32) -> Heads {
    return load(i);
}

fn store_heads(i: u32, stride: u32, used: u32, value: Heads) {
    store(i, value);
}
