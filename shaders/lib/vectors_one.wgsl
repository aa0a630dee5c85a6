// A value of a norm or a bias.
fn vector_at(i: u32) -> f32 { return vectors[i]; }
