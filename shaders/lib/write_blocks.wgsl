// What the encoders of blocks of 32 values share.
const BLOCKS: u32 = (DIM + 31u) / 32u;

// Of a block, the value furthest from zero; the first of equals.
fn furthest(first: u32) -> f32 {
    var found = 0.0;
    for (var i = 0u; i < 32u; i += 1u) {
        let x = value(first + i);
        found = select(found, x, abs(x) > abs(found));
    }
    return found;
}

// Its smallest and its largest value.
fn extremes(first: u32) -> vec2<f32> {
    var found = vec2<f32>(value(first));
    for (var i = 1u; i < 32u; i += 1u) {
        let x = value(first + i);
        found = vec2<f32>(min(found.x, x), max(found.y, x));
    }
    return found;
}

fn inverse_of(scale: f32) -> f32 {
    if (scale == 0.0) {
        return 0.0;
    }
    return 1.0 / scale;
}

// A value becomes (value - base) * inverse + shift without its fraction, at most `most`.
struct Rounding { base: f32, inverse: f32, shift: f32, most: u32 }

fn quant(i: u32, by: Rounding) -> u32 {
    return min(u32((value(i) - by.base) * by.inverse + by.shift), by.most);
}

// Round a block and put the lower four bits of its values into four words, value j and value j + 16 into a byte. Gives the fifth
// bits, that of value j as bit j.
fn put_quants(at: u32, first: u32, by: Rounding) -> u32 {
    var fifth = 0u;
    for (var w = 0u; w < 4u; w += 1u) {
        var word = 0u;
        for (var j = 0u; j < 4u; j += 1u) {
            let i = 4u * w + j;
            let low = quant(first + i, by);
            let high = quant(first + i + 16u, by);
            word |= ((low & 15u) | ((high & 15u) << 4u)) << (8u * j);
            fifth |= ((low >> 4u) << i) | ((high >> 4u) << (i + 16u));
        }
        put(at + w, word);
    }
    return fifth;
}
