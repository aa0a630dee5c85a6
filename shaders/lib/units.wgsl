// Sixteen weights in their order: signed bytes, value = scale * q + bias.
struct Unit { scale: f32, bias: f32, q: vec4<u32> }
// Two units whose bits lie in the same words.
struct Pair { scale: vec2<f32>, bias: vec2<f32>, a: vec4<u32>, b: vec4<u32> }

// Four signed bytes as floats.
fn bytes_of(q: u32) -> vec4<f32> { return vec4<f32>(unpack4xI8(q)); }

// The low four bits of every byte, and the high four.
fn low_nibbles(v: vec4<u32>) -> vec4<u32> { return v & vec4<u32>(0x0f0f0f0fu); }
fn high_nibbles(v: vec4<u32>) -> vec4<u32> { return (v >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu); }

// Every byte (0 to 127) less n (up to 127): no byte borrows from its neighbour while bit 7 is set.
fn minus(v: vec4<u32>, n: u32) -> vec4<u32> {
    return ((v | vec4<u32>(0x80808080u)) - vec4<u32>(n * 0x01010101u)) ^ vec4<u32>(0x80808080u);
}

// The 16-bit float in the lower or the upper half of a word.
fn float_at(word: u32, upper: u32) -> f32 { return unpack2x16float(word >> (16u * upper)).x; }

// Byte i of a word, without and with its sign.
fn byte_at(word: u32, i: u32) -> u32 { return (word >> (8u * i)) & 255u; }
fn signed_byte_at(word: u32, i: u32) -> i32 { return bitcast<i32>(word << (24u - 8u * i)) >> 24u; }

// Sixteen bits, one to each byte of four words, at bit 4: the fifth bits of sixteen quants.
fn fifth_bits(bits: u32) -> vec4<u32> {
    let four = (vec4<u32>(bits) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    return ((four * vec4<u32>(0x00204081u)) & vec4<u32>(0x01010101u)) << vec4<u32>(4u);
}
