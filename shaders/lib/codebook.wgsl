// The sixteen signed bytes of IQ4_NL and IQ4_XS (gguf/src/block/iq4_nl.rs) for sixteen indices, one in each byte.
//
// A tree of choices by the bits of the index, four bytes at once; an array indexed at run time would live in memory.
fn choose(a: vec4<u32>, b: vec4<u32>, by: vec4<u32>) -> vec4<u32> { return a ^ ((a ^ b) & by); }
fn choose_bytes(a: u32, b: u32, by: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(a * 0x01010101u) ^ (vec4<u32>((a ^ b) * 0x01010101u) & by);
}
fn codebook(index: vec4<u32>) -> vec4<u32> {
    let one = vec4<u32>(0x01010101u);
    let all = vec4<u32>(255u);
    let b0 = (index & one) * all;
    let b1 = ((index >> vec4<u32>(1u)) & one) * all;
    let b2 = ((index >> vec4<u32>(2u)) & one) * all;
    let b3 = ((index >> vec4<u32>(3u)) & one) * all;
    // -127 -104 -83 -65, -49 -35 -22 -10
    let q0 = choose(choose_bytes(0x81u, 0x98u, b0), choose_bytes(0xadu, 0xbfu, b0), b1);
    let q1 = choose(choose_bytes(0xcfu, 0xddu, b0), choose_bytes(0xeau, 0xf6u, b0), b1);
    // 1 13 25 38, 53 69 89 113
    let q2 = choose(choose_bytes(0x01u, 0x0du, b0), choose_bytes(0x19u, 0x26u, b0), b1);
    let q3 = choose(choose_bytes(0x35u, 0x45u, b0), choose_bytes(0x59u, 0x71u, b0), b1);
    return choose(choose(q0, q1, b2), choose(q2, q3, b2), b3);
}
