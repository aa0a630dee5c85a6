// A row of a matrix in items of 32 values and in sixteens, for formats of blocks.
//
// The first block of a row is row * stride. W_LEN, W_PAIRS, w_at, w_pair and w_unit are the format's, as the header calls them.

// 32 values at two places, not yet scaled: value = scale * q + bias, of a0 to a3 and of b0 to b3.
struct Item {
    scale: vec2<f32>, bias: vec2<f32>,
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}
// Sixteen values in their order.
struct Sixteen { v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32> }

const ITEM_BIASED: bool = W_BIASED;

// Where in the row the a and the b of item i begin.
fn item_at(i: u32) -> vec2<u32> { return i / W_PAIRS * W_LEN + 16u * w_at(i % W_PAIRS); }

fn item(row: u32, i: u32, k: u32) -> Item {
    let p = w_pair(row + i / W_PAIRS, i % W_PAIRS);
    return Item(
        p.scale, p.bias,
        bytes_of(p.a.x), bytes_of(p.a.y), bytes_of(p.a.z), bytes_of(p.a.w),
        bytes_of(p.b.x), bytes_of(p.b.y), bytes_of(p.b.z), bytes_of(p.b.w),
    );
}

// Values 16 u to 16 u + 15 of a row of k.
fn sixteen(row: u32, u: u32, k: u32) -> Sixteen {
    let w = w_unit(row + u / (W_LEN / 16u), u % (W_LEN / 16u));
    let bias = vec4<f32>(w.bias);
    return Sixteen(
        w.scale * bytes_of(w.q.x) + bias, w.scale * bytes_of(w.q.y) + bias,
        w.scale * bytes_of(w.q.z) + bias, w.scale * bytes_of(w.q.w) + bias,
    );
}
