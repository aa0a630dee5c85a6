// Heads of q, k and v of the batch on their way to attention: q and k normalised where the model does that, turned by their
// angles; q goes to the arena, k and v are rounded and written into the cache. A workgroup takes a head.
struct Params {
    q: u32,
    k: u32,
    v: u32,
    table: u32,
    out: u32,
    cells: u32,
    tokens: u32,
    n_rot: u32,
    capacity: u32,
    k_scales: u32,
    v_scales: u32,
    // The norms' weights among the vectors, and what is added to the mean square.
    q_norm: u32,
    k_norm: u32,
    q_eps: f32,
    k_eps: f32,
}
var<immediate> p: Params;

const HEADS: u32 = Q_HEADS + 2u * KV_HEADS;

var<workgroup> head: array<f32, DIM>;

fn row_value(i: u32) -> f32 {
    return head[i];
}

fn scales_at() -> u32 {
    return select(p.k_scales, p.v_scales, to_v);
}

@compute @workgroup_size(WG)
fn main(at: At) {
    let number = group(at);
    let live = number / HEADS < p.tokens;
    let token = min(number / HEADS, p.tokens - 1u);
    let h = number % HEADS;
    let is_q = h < Q_HEADS;
    let is_v = h >= Q_HEADS + KV_HEADS;
    to_v = is_v;
    // Which head of its kind.
    let own = select(select(h - Q_HEADS, h - Q_HEADS - KV_HEADS, is_v), h, is_q);
    let row = token * select(KV_HEADS, Q_HEADS, is_q) + own;
    let x = select(select(p.k, p.v, is_v), p.q, is_q) + row * DIM;
    var squares = 0.0;
    for (var i = at.local; i < DIM; i += WG) {
        let value = load(x + i);
        head[i] = value;
        squares += value * value;
    }
    if (NORM_Q + NORM_K > 0u) {
        // All threads sum, also those of heads that are not normalised: they must meet.
        let mean = reduce_add(squares, at) / f32(DIM);
        let normed = (is_q && NORM_Q == 1u) || (!is_q && !is_v && NORM_K == 1u);
        if (normed) {
            let scale = inverseSqrt(mean + select(p.k_eps, p.q_eps, is_q));
            let weight = select(p.k_norm, p.q_norm, is_q);
            for (var i = at.local; i < DIM; i += WG) {
                head[i] *= scale * vector_at(weight + i);
            }
        }
    }
    workgroupBarrier();
    if (!is_v) {
        for (var pair = at.local; pair < p.n_rot / 2u; pair += WG) {
            let angle = p.table + token * p.n_rot + 2u * pair;
            let places = pair_at(pair, p.n_rot);
            let turned = turn(vec2<f32>(head[places.x], head[places.y]), vec2<f32>(load(angle), load(angle + 1u)));
            head[places.x] = turned.x;
            head[places.y] = turned.y;
        }
    }
    workgroupBarrier();
    if (!live) {
        return;
    }
    if (is_q) {
        for (var i = at.local; i < DIM; i += WG) {
            store(p.out + row * DIM + i, head[i]);
        }
        return;
    }
    let cell = min(inputs[p.cells + token], p.capacity - 1u);
    for (var unit = at.local; unit < ROW_UNITS; unit += WG) {
        write_unit(unit, own * p.capacity + cell);
    }
}
