fn id(at: u32) -> u32 {
    return inputs[at];
}
