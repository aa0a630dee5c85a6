// K rows of a layer's cache; V rows.
@group(0) @binding(6) var<storage, read_write> cache_k: array<u32>;
@group(0) @binding(7) var<storage, read_write> cache_v: array<u32>;

fn put(i: u32, word: u32) {
    cache_v[i] = word;
}
