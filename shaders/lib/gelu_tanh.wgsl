// tanh-GELU is x * sigmoid(2 z) with z = sqrt(2 / pi) (x + 0.044715 x^3).
fn glu(gate: f32, up: f32) -> f32 {
    let z = 1.5957692 * gate * (1.0 + 0.044715 * gate * gate);
    return gate / (1.0 + exp(-z)) * up;
}
