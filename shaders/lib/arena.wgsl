// The intermediates: every value that an op reads or writes lies here, at offsets in words that come as immediates.
// The same memory twice: a kernel writes what it reads through neither view.
@group(0) @binding(0) var<storage, read_write> arena: array<u32>;
@group(0) @binding(1) var<storage, read_write> arena4: array<vec4<f32>>;

fn load(at: u32) -> f32 {
    return bitcast<f32>(arena[at]);
}

fn store(at: u32, value: f32) {
    arena[at] = bitcast<u32>(value);
}
