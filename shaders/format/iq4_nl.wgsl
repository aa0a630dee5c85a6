// Groups of 8 blocks: indices 8 x 16 bytes, scales 8 x f16. value = d * codebook[index].
const IQ4_NL_LEN: u32 = 32u;
const IQ4_NL_PAIRS: u32 = 1u;
const IQ4_NL_BIASED: bool = false;

fn iq4_nl_indices(block: u32) -> vec4<u32> { return word4((block >> 3u) * 9u + (block & 7u)); }

fn iq4_nl_scale(block: u32) -> f32 {
    return float_at(word((block >> 3u) * 36u + 32u + ((block & 7u) >> 1u)), block & 1u);
}

fn iq4_nl_at(p: u32) -> vec2<u32> { return vec2<u32>(0u, 1u); }

fn iq4_nl_pair(block: u32, p: u32) -> Pair {
    let v = iq4_nl_indices(block);
    let d = iq4_nl_scale(block);
    return Pair(vec2<f32>(d), vec2<f32>(0.0), codebook(v), codebook(v >> vec4<u32>(4u)));
}

fn iq4_nl_unit(block: u32, u: u32) -> Unit {
    return Unit(iq4_nl_scale(block), 0.0, codebook(iq4_nl_indices(block) >> vec4<u32>(4u * u)));
}
