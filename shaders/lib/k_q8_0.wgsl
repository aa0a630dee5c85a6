const K_BLOCKS: u32 = (DK + 31u) / 32u;

// Values 4 i to 4 i + 3 of a K row.
fn k4(row: u32, i: u32) -> vec4<f32> {
    let block = i / 8u;
    let scales = unpack2x16float(cache_k[p.k_scales + row * ((K_BLOCKS + 1u) / 2u) + block / 2u]);
    let scale = select(scales.y, scales.x, (block & 1u) == 0u);
    return vec4<f32>(unpack4xI8(cache_k[row * K_BLOCKS * 8u + i])) * scale;
}
