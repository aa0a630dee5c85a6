// Groups of 2 blocks: indices 2 x 128 bytes, headers 2 x 8 bytes (d f16, high bits of the scales, their low bits).
// value = (d * (sc - 32)) * codebook[index], sub-blocks of 32.
const IQ4_XS_LEN: u32 = 256u;
const IQ4_XS_PAIRS: u32 = 8u;
const IQ4_XS_BIASED: bool = false;

fn iq4_xs_indices(block: u32, s: u32) -> vec4<u32> { return word4((block >> 1u) * 17u + (block & 1u) * 8u + s); }

fn iq4_xs_scale(block: u32, s: u32) -> f32 {
    let at = word4((block >> 1u) * 17u + 16u);
    let head = select(at.xy, at.zw, (block & 1u) == 1u);
    let low = (head.y >> (4u * s)) & 15u;
    let high = (head.x >> (16u + 2u * s)) & 3u;
    return unpack2x16float(head.x).x * f32(i32(low | (high << 4u)) - 32);
}

fn iq4_xs_at(p: u32) -> vec2<u32> { return vec2<u32>(2u * p, 2u * p + 1u); }

fn iq4_xs_pair(block: u32, p: u32) -> Pair {
    let v = iq4_xs_indices(block, p);
    let d = iq4_xs_scale(block, p);
    return Pair(vec2<f32>(d), vec2<f32>(0.0), codebook(v), codebook(v >> vec4<u32>(4u)));
}

fn iq4_xs_unit(block: u32, u: u32) -> Unit {
    let v = iq4_xs_indices(block, u >> 1u);
    return Unit(iq4_xs_scale(block, u >> 1u), 0.0, codebook(v >> vec4<u32>(4u * (u & 1u))));
}
