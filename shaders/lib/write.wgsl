// A value of the row that is written; zeros fill it up.
fn value(i: u32) -> f32 {
    if (i < DIM) {
        return row_value(i);
    }
    return 0.0;
}
