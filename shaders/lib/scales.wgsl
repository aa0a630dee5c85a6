// Scales and minima of 6 bits, which Q4_K and Q5_K share: of sub-blocks 2c and 2c+1, the scales and then the minima,
// multiplied by d and -dmin. The header of a block is d and dmin as 16-bit floats, then the twelve bytes of gguf/src/block/scales.rs.
fn six_bit_scales(head: vec4<u32>, c: u32) -> vec4<f32> {
    let late = c >= 2u;
    let shift = (c & 1u) * 16u;
    let scales = select(head.y & 0x3f3f3f3fu, (head.w & 0x0f0f0f0fu) | ((head.y >> 2u) & 0x30303030u), late) >> shift;
    let mins = select(head.z & 0x3f3f3f3fu, ((head.w >> 4u) & 0x0f0f0f0fu) | ((head.z >> 2u) & 0x30303030u), late) >> shift;
    let d = unpack2x16float(head.x);
    let n = vec4<u32>(scales & 255u, (scales >> 8u) & 255u, mins & 255u, (mins >> 8u) & 255u);
    return vec4<f32>(d.x, d.x, -d.y, -d.y) * vec4<f32>(n);
}
