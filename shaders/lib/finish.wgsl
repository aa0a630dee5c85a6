// What becomes of a sum before it is stored: by the header's BIAS, GLU and ADD.

// act(gate) * up: 1 is x / (1 + exp(-x)), 2 is x * Phi(x) in the tanh approximation.
fn glu(gate: f32, up: f32) -> f32 {
    if (GLU == 1u) { return gate / (1.0 + exp(-gate)) * up; }
    // tanh written with one exponential, which saturates and never divides infinity by infinity.
    let t = 1.5957691216057308 * gate * (1.0 + 0.044715 * gate * gate);
    return gate / (1.0 + exp(-t)) * up;
}
