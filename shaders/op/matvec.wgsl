// A matrix times COLS vectors (1 to 8): out[c][r] = sum of w[r][i] * x[c][i].
//
// A team of LANES threads computes ROWS rows (1 or 2) at once: a thread takes every LANES-th item of 32 weights, which it unpacks once
// for all columns. PARTS matrices with the same row length may be multiplied in one dispatch, one after the other (each its own
// results), or with GLU the same row of two. NORM: the vectors are RMS-normalised first; as the norm is a factor of the whole
// vector, its sum of squares is taken along the way. EXPERTS: one vector a slot, whose matrix is a number in the arena.
struct Params {
    // Values of a row; items of 32 in it; blocks, or vectors of four floats, of a row.
    k: u32, items: u32, stride: u32,
    // Words of the arena: the vectors and from one to the next.
    x_at: u32, x_stride: u32,
    // The norm's weights among the vectors, and what is added to the mean square.
    norm_at: u32, eps: f32,
    // What is added to the results: in the arena, from one vector to the next.
    add_at: u32, add_stride: u32,
    // Of the part of the matrix that lies here: the first expert and their number; rows of an expert; where the numbers begin, and how
    // many a token has; slots of all tokens; whether each slot has its own vector.
    first_expert: u32, experts: u32, expert_rows: u32, ids_at: u32, used: u32, slots: u32, x_per_slot: u32,
    // For every matrix: rows, where the results go and from one vector to the next, the bias among the vectors.
    rows0: u32, out0: u32, out_stride0: u32, bias0: u32,
    rows1: u32, out1: u32, out_stride1: u32, bias1: u32,
    rows2: u32, out2: u32, out_stride2: u32, bias2: u32,
}
var<immediate> params: Params;

const TEAMS: u32 = WG / LANES;
// Where the slots of sums of squares begin.
const SQUARES: u32 = COLS * ROWS;

fn put(c: u32, v: vec3<f32>, at: At) {
    team_put(c * ROWS, v.x, at);
    if (ROWS > 1u) { team_put(c * ROWS + 1u, v.y, at); }
    if (NORM == 1u) { team_put(SQUARES + c, v.z, at); }
}

@compute @workgroup_size(WG)
fn main(at: At) {
    // Workgroups of the matrices follow each other; each has whole ones.
    let per_group = select(TEAMS * ROWS, TEAMS, GLU != 0u);
    var number = group(at);
    var rows = params.rows0;
    var out = params.out0;
    var out_stride = params.out_stride0;
    var bias = params.bias0;
    var here = 0u;
    if (PARTS > 1u && GLU == 0u) {
        let groups0 = (rows + per_group - 1u) / per_group;
        if (number >= groups0) {
            number -= groups0;
            rows = params.rows1;
            out = params.out1;
            out_stride = params.out_stride1;
            bias = params.bias1;
            here = 1u;
            if (PARTS > 2u) {
                let groups1 = (rows + per_group - 1u) / per_group;
                if (number >= groups1) {
                    number -= groups1;
                    rows = params.rows2;
                    out = params.out2;
                    out_stride = params.out_stride2;
                    bias = params.bias2;
                    here = 2u;
                }
            }
        }
    }
    part = here;
    var slot = 0u;
    var present = true;
    if (EXPERTS == 1u) {
        // The workgroups of a slot follow each other, and those of the next one follow them.
        let groups = (rows + per_group - 1u) / per_group;
        slot = number / groups;
        present = slot < params.slots;
        slot = min(slot, params.slots - 1u);
        number = number % groups;
    }
    // The first of the team's rows. Teams beyond the last row compute it again and store nothing, since all must meet.
    let first = number * per_group + team(at) * select(ROWS, 1u, GLU != 0u);
    var row_a = min(first, rows - 1u);
    var row_b = row_a;
    if (ROWS > 1u && GLU == 0u) { row_b = min(first + 1u, rows - 1u); }
    var x = params.x_at;
    if (EXPERTS == 1u) {
        x += select(slot / params.used, slot, params.x_per_slot != 0u) * params.x_stride;
        // A number below the first expert wraps around and is as far off as one behind the last.
        let expert = id(params.ids_at + slot) - params.first_expert;
        let here_too = expert < params.experts;
        present = present && here_too;
        let skip = select(0u, expert, here_too) * params.expert_rows;
        row_a += skip;
        row_b += skip;
    }
    let a = row_a * params.stride;
    let b = row_b * params.stride;

    var s0 = vec3<f32>(0.0);
    var s1 = vec3<f32>(0.0);
    var s2 = vec3<f32>(0.0);
    var s3 = vec3<f32>(0.0);
    var s4 = vec3<f32>(0.0);
    var s5 = vec3<f32>(0.0);
    var s6 = vec3<f32>(0.0);
    var s7 = vec3<f32>(0.0);
    let xs = params.x_stride;
    let own = lane(at);
    for (var i = own; i < params.items; i += LANES) {
        if (GLU != 0u) { part = 0u; }
        let wa = weights(a, i, params.k);
        var wb = wa;
        if (ROWS > 1u) {
            if (GLU != 0u) { part = 1u; }
            wb = weights(b, i, params.k);
        }
        let n = norms(params.norm_at, i, params.k);
        s0 += multiply(wa, wb, x, i, n, params.k);
        if (COLS > 1u) { s1 += multiply(wa, wb, x + xs, i, n, params.k); }
        if (COLS > 2u) { s2 += multiply(wa, wb, x + 2u * xs, i, n, params.k); }
        if (COLS > 3u) { s3 += multiply(wa, wb, x + 3u * xs, i, n, params.k); }
        if (COLS > 4u) { s4 += multiply(wa, wb, x + 4u * xs, i, n, params.k); }
        if (COLS > 5u) { s5 += multiply(wa, wb, x + 5u * xs, i, n, params.k); }
        if (COLS > 6u) { s6 += multiply(wa, wb, x + 6u * xs, i, n, params.k); }
        if (COLS > 7u) { s7 += multiply(wa, wb, x + 7u * xs, i, n, params.k); }
    }
    put(0u, s0, at);
    if (COLS > 1u) { put(1u, s1, at); }
    if (COLS > 2u) { put(2u, s2, at); }
    if (COLS > 3u) { put(3u, s3, at); }
    if (COLS > 4u) { put(4u, s4, at); }
    if (COLS > 5u) { put(5u, s5, at); }
    if (COLS > 6u) { put(6u, s6, at); }
    if (COLS > 7u) { put(7u, s7, at); }
    team_meet();

    // A lane finishes one result: a row of a column.
    if (!present) { return; }
    let results = select(COLS * ROWS, COLS, GLU != 0u);
    if (own >= results) { return; }
    let c = select(own / ROWS, own, GLU != 0u);
    let r = first + select(own % ROWS, 0u, GLU != 0u);
    if (r >= rows) { return; }
    var factor = 1.0;
    if (NORM == 1u) { factor = inverseSqrt(team_sum(SQUARES + c, at) / f32(params.k) + params.eps); }
    var value: f32;
    if (GLU != 0u) {
        value = glu(factor * team_sum(c * ROWS, at), factor * team_sum(c * ROWS + 1u, at));
    } else {
        value = factor * team_sum(own, at);
        if (BIAS == 1u) { value += vector_at(bias + r); }
    }
    if (ADD == 1u) { value += load(params.add_at + (c + slot) * params.add_stride + r); }
    store(out + (c + slot) * out_stride + r, value);
}
