//! The ids of tensor types that files carry but the table of formats does not hold, by name, so that a
//! refusal says what was found. An id that the table holds is never looked up here.

/// Why a type of the list is not in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// llama.cpp writes it into files.
    Current,
    /// llama.cpp uses it for activations only.
    Activations,
    /// It was taken out of llama.cpp.
    Removed,
    /// Only ik_llama.cpp writes it.
    IkOnly,
}

use Origin::{Activations, Current, IkOnly, Removed};

const NAMES: &[(u32, &str, Origin)] = &[
    (4, "Q4_2", Removed),
    (5, "Q4_3", Removed),
    (9, "Q8_1", Activations),
    (15, "Q8_K", Activations),
    (16, "IQ2_XXS", Current),
    (17, "IQ2_XS", Current),
    (18, "IQ3_XXS", Current),
    (19, "IQ1_S", Current),
    (21, "IQ3_S", Current),
    (22, "IQ2_S", Current),
    (29, "IQ1_M", Current),
    (31, "Q4_0_4_4", Removed),
    (32, "Q4_0_4_8", Removed),
    (33, "Q4_0_8_8", Removed),
    (34, "TQ1_0", Current),
    (35, "TQ2_0", Current),
    (36, "IQ4_NL_4_4 (in ik_llama.cpp: I2_S)", Removed),
    (37, "IQ4_NL_4_8", Removed),
    (38, "IQ4_NL_8_8", Removed),
    (40, "NVFP4", Current),
    (41, "Q1_0", Current),
    (42, "Q2_0", Current),
];

/// What the type of this id is, and why it cannot be read; for ids that the table does not hold.
pub(crate) fn refusal(id: u32) -> String {
    let known = NAMES.iter().find(|(n, ..)| *n == id).map(|(_, name, origin)| (*name, *origin));
    let known = known.or_else(|| matches!(id, 97..=99 | 133..=158 | 202..=399).then_some(("?", IkOnly)));
    match known {
        Some((name, Current)) => format!("is of type {name} (id {id}), which is known but not supported"),
        Some((name, Activations)) => {
            format!("is of type {name} (id {id}), which is for activations and not for weights in files")
        }
        Some((name, Removed)) => format!(
            "is of type {name} (id {id}), which llama.cpp removed; the file must be made again from its source"
        ),
        Some((_, IkOnly)) => {
            format!("is of a type that only ik_llama.cpp knows (id {id}), which is not supported")
        }
        None => format!("is of the unknown type {id}"),
    }
}
