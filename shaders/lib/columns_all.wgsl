// The columns of a tile of `matmul`: 64 neighbouring vectors.

// The tile's first column, how many it has, and the rows of the matrix before those that it multiplies by.
struct Tile64 { first: u32, count: u32, skip: u32 }

fn tile_of(number: u32) -> Tile64 {
    let first = number * 64u;
    return Tile64(first, min(params.n - min(first, params.n), 64u), 0u);
}
// Which vector column c of the tile is, and which result.
fn vector_of(t: Tile64, c: u32) -> u32 { return t.first + min(c, max(t.count, 1u) - 1u); }
fn result_of(t: Tile64, c: u32) -> u32 { return t.first + c; }
