const K_BLOCKS: u32 = (DK + 31u) / 32u;

// Values 4 i to 4 i + 3 of a K row: of a block, the first half are the lower nibbles.
fn k4(row: u32, i: u32) -> vec4<f32> {
    let block = i / 8u;
    let scales = unpack2x16float(cache_k[p.k_scales + row * ((K_BLOCKS + 1u) / 2u) + block / 2u]);
    let scale = select(scales.y, scales.x, (block & 1u) == 0u);
    let bytes = cache_k[(row * K_BLOCKS + block) * 4u + (i & 3u)];
    let nibbles = (bytes >> (i & 4u)) & 0x0f0f0f0fu;
    return (vec4<f32>(unpack4xU8(nibbles)) - 8.0) * scale;
}
