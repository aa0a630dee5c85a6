//! One file per block format: its layout, `decode`, `encode`.
