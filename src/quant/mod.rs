//! The quantization workshop: from a file in floats to a smaller one, and what that costs.
//!
//! A *file type* ([`FileType`]) is what a user asks for: `Q4_K_M`. It is a mixture: [`Plan`] says which block format each
//! tensor gets, with the choices that llama.cpp makes, so that files are comparable tensor by tensor. [`run()`] carries a
//! plan out: it streams through the source, rounds rows in parallel and writes a file that takes its name when it is whole.
//!
//! # What rounding means
//!
//! Every block format of `chaski-gguf` is a form of **affine quantization**: a block of values shares a scale `S` and, in
//! some formats, a zero point `Z`, and each value `x` becomes an integer
//!
//! ```text
//! Q = clamp(round(x / S + Z), Qmin, Qmax)        decoded:  x' = S * (Q - Z)
//! ```
//!
//! - *symmetric* formats (Q4_0, Q5_0, Q8_0, Q3_K, Q6_K) have `Z` in the middle of the range; *absmax* chooses
//!   `S = max|x| / |Qmin|`, so that nothing is clamped;
//! - *affine* formats (Q4_1, Q5_1, Q2_K, Q4_K, Q5_K) store a minimum `m` in place of `Z`: `x' = S * Q - m`, so `Z = m / S`;
//! - *codebook* formats (IQ4_NL, IQ4_XS, MXFP4) replace `Q` by an entry of a fixed table: `x' = S * T[Q]`.
//!
//! The *group* that shares a scale has 32 values in the plain formats; the K formats have sub-blocks of 16 or 32 values
//! whose scales are themselves rounded to 4-8 bits with one binary16 scale for 256 values.
//!
//! The K formats do not take absmax: they search the scale (and minimum) of each sub-block for the least weighted error
//! `sum w_i * (x_i - x'_i)^2` (see `gguf/src/block/search`). Without a calibration `w_i` is made of the magnitudes alone.
//!
//! # Measures
//!
//! See [`measures`] for mean squared error, signal-to-noise ratio, cosine, saturation.

mod calibrate;
pub mod calibrated;
mod choose;
mod convert;
mod difference;
mod error;
mod file_type;
mod glob;
pub mod imatrix;
mod imatrix_dat;
pub mod import;
pub mod measures;
mod output;
mod plan;
mod run;
pub mod size;
mod source;

pub use calibrate::{Calibration, calibrate};
pub use difference::{Difference, differences};
pub use error::QuantError;
pub use file_type::FileType;
pub use glob::Glob;
pub use imatrix::{Imatrix, weighs};
pub use import::{Folder, ImportError, ImportOptions};
pub use measures::Measures;
pub use plan::{Plan, PlanOptions, Planned, Substitution};
pub use run::{Job, Outcome, Progress, Written, check, file_bytes, run, run_calibrated};
pub use source::{Piece, Source};
