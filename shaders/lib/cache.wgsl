// K rows of a layer's cache; V rows.
@group(0) @binding(6) var<storage, read_write> cache_k: array<u32>;
@group(0) @binding(7) var<storage, read_write> cache_v: array<u32>;

// The formats of a cache (shaders/cache) read both through these. `of_v` is a constant wherever they are called.
fn cached(of_v: bool, at: u32) -> u32 {
    if (of_v) {
        return cache_v[at];
    }
    return cache_k[at];
}

// Values of a row.
fn row_len(of_v: bool) -> u32 {
    return select(DK, DV, of_v);
}

// The first or the second half of four values.
fn half_of(four: vec4<f32>, i: u32) -> vec2<f32> {
    return select(four.zw, four.xy, (i & 1u) == 0u);
}
