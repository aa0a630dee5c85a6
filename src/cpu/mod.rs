//! The CPU backend.

pub mod attention;
pub mod hadamard;
