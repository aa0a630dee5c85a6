// How an item of 32 weights meets vectors of floats: both as floats.

fn weights(row: u32, i: u32, k: u32) -> Item { return item(row, i, k); }

// The eight vectors of one column that meet an item.
struct Column {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

fn column(x: u32, i: u32, k: u32) -> Column {
    let at = item_at(i);
    return Column(
        x4(x, at.x, k), x4(x, at.x + 4u, k), x4(x, at.x + 8u, k), x4(x, at.x + 12u, k),
        x4(x, at.y, k), x4(x, at.y + 4u, k), x4(x, at.y + 8u, k), x4(x, at.y + 12u, k),
    );
}

// The weights of a norm that meet an item.
fn norms(n: u32, i: u32, k: u32) -> Column {
    if (NORM == 0u) { return Column(); }
    let at = item_at(i);
    return Column(
        norm4(n, at.x, k), norm4(n, at.x + 4u, k), norm4(n, at.x + 8u, k), norm4(n, at.x + 12u, k),
        norm4(n, at.y, k), norm4(n, at.y + 4u, k), norm4(n, at.y + 8u, k), norm4(n, at.y + 12u, k),
    );
}

fn scaled(x: Column, n: Column) -> Column {
    return Column(
        x.a0 * n.a0, x.a1 * n.a1, x.a2 * n.a2, x.a3 * n.a3,
        x.b0 * n.b0, x.b1 * n.b1, x.b2 * n.b2, x.b3 * n.b3,
    );
}

fn total(v: vec4<f32>) -> f32 { return dot(v, vec4<f32>(1.0)); }

fn product(w: Item, x: Column, sums: vec2<f32>) -> f32 {
    let a = dot(w.a0, x.a0) + dot(w.a1, x.a1) + dot(w.a2, x.a2) + dot(w.a3, x.a3);
    let b = dot(w.b0, x.b0) + dot(w.b1, x.b1) + dot(w.b2, x.b2) + dot(w.b3, x.b3);
    return dot(w.scale, vec2<f32>(a, b)) + dot(w.bias, sums);
}

// One column times one row or two, and with a norm the column's sum of squares in z.
fn multiply(wa: Item, wb: Item, x: u32, i: u32, n: Column, k: u32) -> vec3<f32> {
    var c = column(x, i, k);
    var squares = 0.0;
    if (NORM == 1u) {
        squares = total(c.a0 * c.a0 + c.a1 * c.a1 + c.a2 * c.a2 + c.a3 * c.a3)
            + total(c.b0 * c.b0 + c.b1 * c.b1 + c.b2 * c.b2 + c.b3 * c.b3);
        c = scaled(c, n);
    }
    // A bias is multiplied by the sum of its sixteen activations.
    var sums = vec2<f32>(0.0);
    if (ITEM_BIASED) { sums = vec2<f32>(total(c.a0 + c.a1 + c.a2 + c.a3), total(c.b0 + c.b1 + c.b2 + c.b3)); }
    let a = product(wa, c, sums);
    var b = 0.0;
    if (ROWS > 1u) { b = product(wb, c, sums); }
    return vec3<f32>(a, b, squares);
}
