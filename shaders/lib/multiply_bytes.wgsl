// How an item of 32 weights meets vectors of bytes, as `quantize_bytes` leaves them: by sums of integer products.
//
// A vector of k: k / 4 words of four signed bytes, then a scale for each 32.

fn weights(row: u32, i: u32, k: u32) -> Pair { return w_pair(row + i / W_PAIRS, i % W_PAIRS); }

// Nothing is normalised here: that comes before the rounding.
fn norms(n: u32, i: u32, k: u32) -> u32 { return 0u; }

fn sixteen_bytes(x: u32, at: u32) -> vec4<u32> { return bitcast<vec4<u32>>(arena4[(x + at / 4u) >> 2u]); }

fn integers(a: vec4<u32>, b: vec4<u32>) -> f32 {
    return f32(dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w));
}

fn product(w: Pair, a: vec4<u32>, b: vec4<u32>, scale: vec2<f32>, sums: vec2<f32>) -> f32 {
    return dot(scale, w.scale * vec2<f32>(integers(w.a, a), integers(w.b, b)) + w.bias * sums);
}

// One column times one row or two.
fn multiply(wa: Pair, wb: Pair, x: u32, i: u32, n: u32, k: u32) -> vec3<f32> {
    let at = item_at(i);
    let a = sixteen_bytes(x, at.x);
    let b = sixteen_bytes(x, at.y);
    let scales = x + k / 4u;
    let scale = vec2<f32>(load(scales + at.x / 32u), load(scales + at.y / 32u));
    var sums = vec2<f32>(0.0);
    if (W_BIASED) {
        let ones = vec4<u32>(0x01010101u);
        sums = vec2<f32>(integers(ones, a), integers(ones, b));
    }
    let first = product(wa, a, b, scale, sums);
    var second = 0.0;
    if (ROWS > 1u) { second = product(wb, a, b, scale, sums); }
    return vec3<f32>(first, second, 0.0);
}
