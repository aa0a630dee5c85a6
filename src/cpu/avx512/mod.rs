//! Kernels for AVX-512.
