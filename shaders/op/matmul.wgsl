// A matrix times many vectors: out[c][r] = sum of w[r][i] * x[c][i].
//
// A workgroup of WG = 256 threads computes 64 rows by 64 columns, 32 values of a row at a time: the weights are unpacked once for 64
// columns into shared memory, the vectors lie beside them, and a thread holds 4 x 4 results. Four neighbouring values of a row are one
// vector; their places are mixed by the row's number, so that threads of neighbouring rows find them in different banks. Which columns
// a tile has is the library's: all of them in turn, or the slots of an expert.
struct Params {
    // Values of a row; steps of 32 in it; blocks, or vectors of four floats, of a row.
    k: u32, steps: u32, stride: u32,
    // Rows of the results (of one expert) and columns.
    rows: u32, n: u32,
    // Words of the arena: the vectors and from one to the next; the results likewise; what is added to them likewise.
    x_at: u32, x_stride: u32,
    out_at: u32, out_stride: u32,
    add_at: u32, add_stride: u32,
    // The bias among the vectors.
    bias: u32,
    // Experts: the first in this part of the matrix and their number; those that a token uses; whether each slot has its own
    // vector; tiles of slots.
    first_expert: u32, experts: u32, used: u32, x_per_slot: u32, tiles: u32,
}
var<immediate> params: Params;

// Tile is vec4<f32> or vec4<f16>.
var<workgroup> weights: array<Tile, 512>;
var<workgroup> columns: array<vec4<f32>, 512>;

fn place(row: u32, i: u32) -> u32 { return row * 8u + (i ^ (row & 7u)); }

@compute @workgroup_size(WG)
fn main(at: At) {
    let thread = at.local;
    let row_tiles = (params.rows + 63u) / 64u;
    let row0 = group(at) % row_tiles * 64u;
    let tile = tile_of(group(at) / row_tiles);
    let ty = thread & 15u;
    let tx = thread >> 4u;
    // What this thread brings: of the first 128 one half of a row's 32 weights, of all two vectors of a column.
    let w_row = thread & 63u;
    let w_half = (thread >> 6u) & 1u;
    let w_base = (tile.skip + min(row0 + w_row, params.rows - 1u)) * params.stride;
    let x_col = thread >> 3u;
    let x_part = thread & 7u;
    let x0 = params.x_at + vector_of(tile, x_col) * params.x_stride;
    let x1 = params.x_at + vector_of(tile, x_col + 32u) * params.x_stride;

    var c0 = vec4<f32>(0.0);
    var c1 = vec4<f32>(0.0);
    var c2 = vec4<f32>(0.0);
    var c3 = vec4<f32>(0.0);
    let steps = select(0u, params.steps, tile.count > 0u);
    for (var s = 0u; s < steps; s += 1u) {
        if (thread < 128u) {
            let w = sixteen(w_base, 2u * s + w_half, params.k);
            weights[place(w_row, 4u * w_half)] = Tile(w.v0);
            weights[place(w_row, 4u * w_half + 1u)] = Tile(w.v1);
            weights[place(w_row, 4u * w_half + 2u)] = Tile(w.v2);
            weights[place(w_row, 4u * w_half + 3u)] = Tile(w.v3);
        }
        columns[place(x_col, x_part)] = x4(x0, 32u * s + 4u * x_part, params.k);
        columns[place(x_col + 32u, x_part)] = x4(x1, 32u * s + 4u * x_part, params.k);
        workgroupBarrier();
        for (var i = 0u; i < 8u; i += 1u) {
            let a0 = vec4<f32>(weights[place(ty, i)]);
            let a1 = vec4<f32>(weights[place(ty + 16u, i)]);
            let a2 = vec4<f32>(weights[place(ty + 32u, i)]);
            let a3 = vec4<f32>(weights[place(ty + 48u, i)]);
            let b0 = columns[place(tx, i)];
            let b1 = columns[place(tx + 16u, i)];
            let b2 = columns[place(tx + 32u, i)];
            let b3 = columns[place(tx + 48u, i)];
            c0 += vec4<f32>(dot(a0, b0), dot(a1, b0), dot(a2, b0), dot(a3, b0));
            c1 += vec4<f32>(dot(a0, b1), dot(a1, b1), dot(a2, b1), dot(a3, b1));
            c2 += vec4<f32>(dot(a0, b2), dot(a1, b2), dot(a2, b2), dot(a3, b2));
            c3 += vec4<f32>(dot(a0, b3), dot(a1, b3), dot(a2, b3), dot(a3, b3));
        }
        workgroupBarrier();
    }
    finish(row0 + ty, tile, tx, c0);
    finish(row0 + ty, tile, tx + 16u, c1);
    finish(row0 + ty, tile, tx + 32u, c2);
    finish(row0 + ty, tile, tx + 48u, c3);
}

// Column c of the tile: its results in rows 16 apart.
fn finish(row: u32, tile: Tile64, c: u32, v: vec4<f32>) {
    if (c >= tile.count) { return; }
    let result = result_of(tile, c);
    finish_one(row, result, v.x);
    finish_one(row + 16u, result, v.y);
    finish_one(row + 32u, result, v.z);
    finish_one(row + 48u, result, v.w);
}

fn finish_one(row: u32, column: u32, sum: f32) {
    if (row >= params.rows) { return; }
    var value = sum;
    if (BIAS == 1u) { value += vector_at(params.bias + row); }
    if (ADD == 1u) { value += load(params.add_at + column * params.add_stride + row); }
    store(params.out_at + column * params.out_stride + row, value);
}
