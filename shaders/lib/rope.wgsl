// A pair turned by an angle, given as cosine and sine.
fn turn(pair: vec2<f32>, angle: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(pair.x * angle.x - pair.y * angle.y, pair.x * angle.y + pair.y * angle.x);
}
