// A kernel without experts reads no numbers.
fn id(at: u32) -> u32 { return 0u; }
