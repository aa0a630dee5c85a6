// Rows of blocks of 32 values: the quants of all rows, then the scales of all rows.
fn blocks_of(of_v: bool) -> u32 {
    return (row_len(of_v) + 31u) / 32u;
}

fn scales_of(of_v: bool) -> u32 {
    return select(p.k_scales, p.v_scales, of_v);
}

// A block's scale, where a word has two.
fn half_scale(of_v: bool, row: u32, block: u32) -> f32 {
    let words = (blocks_of(of_v) + 1u) / 2u;
    let scales = unpack2x16float(cached(of_v, scales_of(of_v) + row * words + block / 2u));
    return select(scales.y, scales.x, (block & 1u) == 0u);
}

// A block's scale and minimum, which are a word.
fn scale_and_min(of_v: bool, row: u32, block: u32) -> vec2<f32> {
    return unpack2x16float(cached(of_v, scales_of(of_v) + row * blocks_of(of_v) + block));
}

// Four bits of each of a row's values 4 i to 4 i + 3, a byte a value. Their block begins at `at`; its first half is in the
// lower nibbles.
fn nibbles(of_v: bool, at: u32, i: u32) -> u32 {
    return (cached(of_v, at + (i & 3u)) >> (i & 4u)) & 0x0f0f0f0fu;
}

// Their fifth bits, in place; `at` is the word that has those of the block.
fn fifths(of_v: bool, at: u32, i: u32) -> u32 {
    let four = (cached(of_v, at) >> (4u * (i & 7u))) & 15u;
    return ((four * 0x00204081u) & 0x01010101u) << 4u;
}
