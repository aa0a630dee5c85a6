//! Methods that calibrate: a text is run through the model, and what meets each matrix decides how it is rounded.
//!
//! | method | what it does | in |
//! |---|---|---|
//! | `gptq` | rounds columns in order, each error pushed to the columns not yet rounded | [`compensate`](Effort) |
//! | `awq` | scales channels so that those that matter lose less | `fold` |
//! | `smooth` | scales channels so that activations are even | `fold` |
//!
//! They can be combined: channels are smoothed first, then scaled, then the scaled matrices are rounded. Without `gptq`
//! rounding is the format's own search, weighted by the mean squares of the (scaled) activations.
//!
//! # Formulas
//!
//! With `H = E[x x^T]` over the calibration text, the mean squared error of a matrix's output is `sum_r (w_r - q_r)^T H (w_r - q_r)`.
//! Compensated rounding makes that small, see the documentation of `compensate`: `e_j = (w_j - q_j) / U_jj`,
//! `w_k <- w_k - e_j U_jk` for all `k > j`, where `(H + lambda I)^-1 = U^T U`. Smoothing: `s_c = max|x_c|^alpha /
//! max_r |W_rc|^(1 - alpha)`. Activation-aware scaling: `s_c = E[x_c^2]^(beta / 2)`. Both: `W x = (W diag(s)) (x / s)`.
//!
//! *Sequential* calibration: layer after layer, by the activations `x` that the layers before it give once they are rounded.
//! The output wanted is that of the original model, whose activations are `x'`: rows move to `w + (H + lambda I)^-1 D w` with
//! `D = E[x (x' - x)^T]`, which makes `E |q x - w x'|^2` least for real `q`, before they are rounded. A layer then undoes some of
//! what those before it lost.
//!
//! # Memory
//!
//! The moments of a layer are had at once, at 4 bytes for each pair of columns of each distinct input (8 with those of the
//! original model beside them), for each expert of a mixture separately; rounding a matrix takes three times those of its
//! input, and its values. Without sequential calibration as many layers are read in a pass over the text as
//! fit in [`Settings::budget`]; otherwise one, and the rounded layers before it are what the second model runs with, in the
//! formats of the source: those for which the budget has no room lie in scratch files beside the output, mapped like the source.
//! [`Memory`] is all of that in bytes, known before it begins ([`check`]).

mod bring_up;
mod cholesky;
mod compensate;
mod fold;
mod gather;
mod layers;
mod matrix;
mod memory;
mod moments;
mod text;
mod vector;

pub use compensate::Effort;
pub use layers::{Calibrated, Report, Settings, check};
pub use memory::Memory;
pub use moments::Moments;
pub use text::Text;
