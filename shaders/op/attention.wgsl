// softmax(scale * q k) v over the cells that each token sees: a workgroup takes a token, up to HEADS query heads of one K and
// V head, and a part of the positions. Scores and sums are held for these heads at once, as `Heads`.
//
// With several parts, a part leaves its sums, the largest score and the sum of weights in `scratch`; `attention_merge`
// brings them together.
struct Params {
    q: u32,
    out: u32,
    views: u32,
    spans: u32,
    tokens: u32,
    capacity: u32,
    // Parts, and positions of each.
    parts: u32,
    part: u32,
    scale: f32,
    // 0: none.
    softcap: f32,
    // Where the scales of rows begin, in words.
    k_scales: u32,
    v_scales: u32,
}
var<immediate> p: Params;

const LOWEST: f32 = -1e30;
// A thread holds this many pairs of a V row's values.
const PAIRS: u32 = (DV / 2u + WG - 1u) / WG;

var<workgroup> query: array<Heads, DK>;
var<workgroup> weights: array<Heads, WG>;
var<workgroup> rows: array<u32, WG>;

// The cell of a position in spans `first` up to `last`, which are sorted; 0xffffffff where none holds it.
fn cell_of(position: u32, first: u32, last: u32) -> u32 {
    for (var s = first; s < last; s += 1u) {
        let at = p.spans + 3u * s;
        let start = inputs[at + 2u];
        if (position < start) {
            break;
        }
        if (position < start + inputs[at + 1u]) {
            return inputs[at] + position - start;
        }
    }
    return 0xffffffffu;
}

@compute @workgroup_size(WG)
fn main(at: At) {
    let id = group(at);
    let part = id % p.parts;
    let chunk = id / p.parts % CHUNKS;
    let kv_head = id / p.parts / CHUNKS % KV_HEADS;
    let token = id / p.parts / CHUNKS / KV_HEADS;
    let live = token < p.tokens;
    // Workgroups beyond the last token follow it, and write nothing.
    let view = p.views + 4u * min(token, p.tokens - 1u);
    let head = kv_head * GROUP + chunk * HEADS;
    let used = min(HEADS, GROUP - chunk * HEADS);
    let q = p.q + (min(token, p.tokens - 1u) * KV_HEADS * GROUP + head) * DK;
    for (var i = at.local; i < DK; i += WG) {
        query[i] = load_heads(q + i, DK, used) * p.scale;
    }
    let begin = inputs[view] + part * p.part;
    let end = min(inputs[view + 1u], begin + p.part);
    let first_span = inputs[view + 2u];
    let last_span = inputs[view + 3u];

    var largest = Heads(LOWEST);
    var total = Heads(0.0);
    var sums: array<array<Heads, 2>, PAIRS>;
    for (var c = 0u; c < PAIRS; c += 1u) {
        sums[c][0] = Heads(0.0);
        sums[c][1] = Heads(0.0);
    }
    for (var tile = begin; tile < end; tile += WG) {
        // The query is there, and nobody reads the last tile's weights any more.
        workgroupBarrier();
        let position = tile + at.local;
        var cell = 0xffffffffu;
        if (position < end) {
            cell = cell_of(position, first_span, last_span);
        }
        let seen = cell < p.capacity;
        let row = kv_head * p.capacity + select(0u, cell, seen);
        var score = Heads(LOWEST);
        if (seen) {
            score = Heads(0.0);
            for (var i = 0u; i < DK / 4u; i += 1u) {
                let k = k4(row, i);
                score += query[4u * i] * k.x + query[4u * i + 1u] * k.y + query[4u * i + 2u] * k.z
                    + query[4u * i + 3u] * k.w;
            }
            if (p.softcap > 0.0) {
                // Beyond 15 the tangent is 1, and some drivers compute it by exponentials that overflow.
                score = p.softcap * tanh(clamp(score / p.softcap, Heads(-15.0), Heads(15.0)));
            }
        }
        weights[at.local] = score;
        rows[at.local] = row;
        workgroupBarrier();
        let count = min(WG, end - tile);
        var highest = largest;
        for (var j = 0u; j < count; j += 1u) {
            highest = max(highest, weights[j]);
        }
        workgroupBarrier();
        // A row that is not seen keeps weight 0, also where no row is.
        weights[at.local] = select(Heads(0.0), exp(score - highest), seen);
        workgroupBarrier();
        let shrink = exp(largest - highest);
        largest = highest;
        total *= shrink;
        for (var c = 0u; c < PAIRS; c += 1u) {
            let pair = at.local + c * WG;
            var first = sums[c][0] * shrink;
            var second = sums[c][1] * shrink;
            if (pair < DV / 2u) {
                for (var j = 0u; j < count; j += 1u) {
                    let v = v2(rows[j], pair);
                    first += weights[j] * v.x;
                    second += weights[j] * v.y;
                }
            }
            sums[c][0] = first;
            sums[c][1] = second;
        }
        for (var j = 0u; j < count; j += 1u) {
            total += weights[j];
        }
    }
    if (!live) {
        return;
    }
    if (p.parts == 1u) {
        let inverse = select(Heads(0.0), 1.0 / total, total > Heads(0.0));
        for (var c = 0u; c < PAIRS; c += 1u) {
            let pair = at.local + c * WG;
            if (pair < DV / 2u) {
                let out = p.out + (token * KV_HEADS * GROUP + head) * DV + 2u * pair;
                store_heads(out, DV, used, sums[c][0] * inverse);
                store_heads(out + 1u, DV, used, sums[c][1] * inverse);
            }
        }
        return;
    }
    // For every part DV sums, the largest score and the sum of weights.
    for (var c = 0u; c < PAIRS; c += 1u) {
        let pair = at.local + c * WG;
        if (pair < DV / 2u) {
            scratch_heads(id, 2u * pair, sums[c][0]);
            scratch_heads(id, 2u * pair + 1u, sums[c][1]);
        }
    }
    if (at.local == 0u) {
        scratch_heads(id, DV, largest);
        scratch_heads(id, DV + 1u, total);
    }
}

// A value for each head of what workgroup `id` leaves.
fn scratch_heads(id: u32, i: u32, value: Heads) {
    let out = (id * (DV + 2u) + i) * HEADS;
    for (var h = 0u; h < HEADS; h += 1u) {
        scratch[out + h] = of_head(value, h);
    }
}
