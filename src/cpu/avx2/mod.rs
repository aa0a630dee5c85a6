//! Kernels for AVX2, FMA and F16C.
