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
    (97, "Q8_0_X4", IkOnly),
    (98, "Q8_1_X4", IkOnly),
    (99, "Q8_2_X4", IkOnly),
    (133, "Q6_0", IkOnly),
    (134, "IQ1_BN", IkOnly),
    (135, "IQ2_BN", IkOnly),
    (136, "Q8_K64", IkOnly),
    (137, "IQ2_K", IkOnly),
    (138, "IQ3_K", IkOnly),
    (139, "IQ4_K", IkOnly),
    (140, "IQ5_K", IkOnly),
    (141, "IQ6_K", IkOnly),
    (144, "IQ4_KS", IkOnly),
    (145, "IQ2_KS", IkOnly),
    (146, "IQ4_KSS", IkOnly),
    (147, "Q8_K16", IkOnly),
    (148, "Q8_K32", IkOnly),
    (149, "Q8_KR8", IkOnly),
    (150, "Q8_K128", IkOnly),
    (151, "Q8_KV", IkOnly),
    (152, "IQ5_KS", IkOnly),
    (153, "IQ2_KT", IkOnly),
    (154, "IQ3_KT", IkOnly),
    (155, "IQ4_KT", IkOnly),
    (156, "IQ3_KS", IkOnly),
    (157, "IQ2_KL", IkOnly),
    (158, "IQ1_KT", IkOnly),
    (202, "Q4_0_R8", IkOnly),
    (206, "Q5_0_R4", IkOnly),
    (208, "Q8_0_R8", IkOnly),
    (210, "Q2_K_R4", IkOnly),
    (211, "Q3_K_R4", IkOnly),
    (212, "Q4_K_R4", IkOnly),
    (213, "Q5_K_R4", IkOnly),
    (214, "Q6_K_R4", IkOnly),
    (216, "IQ2_XXS_R4", IkOnly),
    (217, "IQ2_XS_R4", IkOnly),
    (218, "IQ3_XXS_R4", IkOnly),
    (219, "IQ1_S_R4", IkOnly),
    (220, "IQ4_NL_R4", IkOnly),
    (221, "IQ3_S_R4", IkOnly),
    (222, "IQ2_S_R4", IkOnly),
    (223, "IQ4_XS_R8", IkOnly),
    (229, "IQ1_M_R4", IkOnly),
    (230, "BF16_R16", IkOnly),
    (233, "Q6_0_R4", IkOnly),
    (335, "IQ2_BN_R4", IkOnly),
    (337, "IQ2_K_R4", IkOnly),
    (338, "IQ3_K_R4", IkOnly),
    (339, "IQ4_K_R4", IkOnly),
    (340, "IQ5_K_R4", IkOnly),
    (344, "IQ4_KS_R4", IkOnly),
    (352, "IQ5_KS_R4", IkOnly),
    (398, "Q8_KV_R8", IkOnly),
    (399, "Q8_K_R8", IkOnly),
];

/// What the type of this id is, and why it cannot be read; for ids that the table does not hold.
pub(crate) fn refusal(id: u32) -> String {
    let Some((_, name, origin)) = NAMES.iter().find(|(known, ..)| *known == id) else {
        return format!("is of the unknown type {id}");
    };
    let why = match origin {
        Current => "which is known but not supported yet",
        Activations => "which is for activations and not for weights in files",
        Removed => "which was removed from llama.cpp; the file must be made again from its source",
        IkOnly => "which only ik_llama.cpp knows and which is not supported",
    };
    format!("is of type {name} (id {id}), {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn the_names_are_in_order_and_each_id_is_there_once() {
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn every_id_below_43_is_in_the_table_or_has_a_name() {
        for id in 0..43 {
            assert!(Format::from_id(id).is_some() || NAMES.iter().any(|(known, ..)| *known == id), "{id}");
        }
    }

    #[test]
    fn a_refusal_names_the_type() {
        assert_eq!(refusal(16), "is of type IQ2_XXS (id 16), which is known but not supported yet");
        assert!(refusal(31).contains("Q4_0_4_4") && refusal(31).contains("removed"));
        assert!(refusal(144).contains("IQ4_KS") && refusal(144).contains("ik_llama.cpp"));
        assert_eq!(refusal(1234), "is of the unknown type 1234");
    }
}
