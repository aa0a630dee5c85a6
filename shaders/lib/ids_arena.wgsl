fn id(at: u32) -> u32 {
    return arena[at];
}
