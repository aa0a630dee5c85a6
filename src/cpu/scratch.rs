//! Memory of one thread, kept from product to product.

/// Sums of products with many columns.
#[derive(Default)]
pub struct Scratch {
    sums: Vec<f32>,
}

impl Scratch {
    /// `n` zeros.
    pub(super) fn zeros(&mut self, n: usize) -> &mut [f32] {
        self.sums.clear();
        self.sums.resize(n, 0.0);
        &mut self.sums
    }
}
