// Slots brought together by their expert, and cut into tiles of 64 of one expert: what `matmul` walks through. One workgroup.
//
// In the shared memory: for each tile its expert, the first of its entries in the list, and how many; then the list of slots. Tiles
// that are not needed have no entries. Numbers are kept as floats, exactly.
struct Params {
    // Slots of all tokens and where their experts' numbers begin; experts; tiles that there may be.
    slots: u32, ids_at: u32, experts: u32, tiles: u32,
}
var<immediate> params: Params;

// How many slots an expert has; then, where its next slot goes in the list.
var<workgroup> counts: array<atomic<u32>, EXPERTS>;
var<workgroup> next: array<atomic<u32>, EXPERTS>;

@compute @workgroup_size(WG)
fn main(at: At) {
    // Other workgroups, if there are any, must leave the list alone.
    let slots = select(0u, params.slots, group(at) == 0u);
    for (var e = at.local; e < EXPERTS; e += WG) { atomicStore(&counts[e], 0u); }
    workgroupBarrier();
    for (var i = at.local; i < slots; i += WG) {
        let e = id(params.ids_at + i);
        if (e < EXPERTS) { atomicAdd(&counts[e], 1u); }
    }
    workgroupBarrier();
    if (at.local == 0u && group(at) == 0u) {
        var first = 0u;
        var tile = 0u;
        for (var e = 0u; e < EXPERTS; e += 1u) {
            let count = atomicLoad(&counts[e]);
            atomicStore(&next[e], first);
            for (var done = 0u; done < count && tile < params.tiles; done += 64u) {
                scratch[3u * tile] = f32(e);
                scratch[3u * tile + 1u] = f32(first + done);
                scratch[3u * tile + 2u] = f32(min(count - done, 64u));
                tile += 1u;
            }
            first += count;
        }
        for (; tile < params.tiles; tile += 1u) {
            scratch[3u * tile] = 0.0;
            scratch[3u * tile + 1u] = 0.0;
            scratch[3u * tile + 2u] = 0.0;
        }
    }
    workgroupBarrier();
    // Whichever order slots of one expert get: each result is computed alone.
    for (var i = at.local; i < slots; i += WG) {
        let e = id(params.ids_at + i);
        if (e < EXPERTS) { scratch[3u * params.tiles + atomicAdd(&next[e], 1u)] = f32(i); }
    }
}
