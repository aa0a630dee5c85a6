// A row of a matrix in items of 32 values and in sixteens, for formats of floats.
//
// The first four values of a row are number row * stride; w_float4 is the format's, as the header calls it. A row may end anywhere in
// an item (W_TAIL): what lies behind its end counts as zero.

// 32 values at two places: a0 to a3 and b0 to b3.
struct Item {
    scale: vec2<f32>, bias: vec2<f32>,
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}
// Sixteen values in their order.
struct Sixteen { v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32> }

const ITEM_BIASED: bool = false;

// Where in the row the a and the b of item i begin.
fn item_at(i: u32) -> vec2<u32> { return vec2<u32>(32u * i, 32u * i + 16u); }

// Values 4 i to 4 i + 3 of a row of k.
fn four(row: u32, i: u32, k: u32) -> vec4<f32> {
    if (W_TAIL == 0u) { return w_float4(row + i); }
    // The last vector of a row is read in the place of those behind it.
    let v = w_float4(row + min(i, (k - 1u) / 4u));
    return select(vec4<f32>(0.0), v, vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(k));
}

fn item(row: u32, i: u32, k: u32) -> Item {
    let f = 8u * i;
    return Item(
        vec2<f32>(1.0), vec2<f32>(0.0),
        four(row, f, k), four(row, f + 1u, k), four(row, f + 2u, k), four(row, f + 3u, k),
        four(row, f + 4u, k), four(row, f + 5u, k), four(row, f + 6u, k), four(row, f + 7u, k),
    );
}

// Values 16 u to 16 u + 15 of a row of k.
fn sixteen(row: u32, u: u32, k: u32) -> Sixteen {
    let f = 4u * u;
    return Sixteen(four(row, f, k), four(row, f + 1u, k), four(row, f + 2u, k), four(row, f + 3u, k));
}
