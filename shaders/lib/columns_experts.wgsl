// The columns of a tile of `matmul`: up to 64 slots of one expert, as `expert_tiles` found them.

// The first of the tile's slots in the list, how many it has, and the rows of the matrix before the expert's.
struct Tile64 { first: u32, count: u32, skip: u32 }

fn tile_of(number: u32) -> Tile64 {
    let t = 3u * min(number, params.tiles - 1u);
    // A number below the first expert wraps around and is as far off as one behind the last.
    let expert = u32(scratch[t]) - params.first_expert;
    let here = expert < params.experts && number < params.tiles;
    let count = select(0u, u32(scratch[t + 2u]), here);
    return Tile64(u32(scratch[t + 1u]), count, select(0u, expert, here) * params.rows);
}
fn slot_of(t: Tile64, c: u32) -> u32 {
    return u32(scratch[3u * params.tiles + t.first + min(c, max(t.count, 1u) - 1u)]);
}
// Which vector column c of the tile is, and which result.
fn vector_of(t: Tile64, c: u32) -> u32 {
    let slot = slot_of(t, c);
    return select(slot / params.used, slot, params.x_per_slot != 0u);
}
fn result_of(t: Tile64, c: u32) -> u32 { return slot_of(t, c); }
