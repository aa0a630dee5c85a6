//! The file types that can be asked for: llama.cpp's mixtures by its names and numbers, and single formats.

use chaski_gguf::Format;

macro_rules! file_types {
    ($($(#[$doc:meta])* $name:ident = $id:expr, $base:ident;)*) => {
        /// A mixture of block formats, by the name that llama.cpp gives it.
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FileType { $($(#[$doc])* $name),* }

        impl FileType {
            /// All of them.
            pub const ALL: &'static [FileType] = &[$(FileType::$name),*];

            /// The name.
            pub fn name(self) -> &'static str {
                match self { $(FileType::$name => stringify!($name)),* }
            }

            /// llama.cpp's number (`enum llama_ftype`), which stands in `general.file_type`; none where it has none.
            pub fn id(self) -> Option<u32> {
                match self { $(FileType::$name => $id),* }
            }

            /// The format of every matrix for which nothing else is said.
            pub fn base(self) -> Format {
                match self { $(FileType::$name => Format::$base),* }
            }
        }
    };
}

file_types! {
    /// Every tensor in binary32.
    F32 = Some(0), F32;
    /// Matrices in binary16.
    F16 = Some(1), F16;
    /// Matrices in bfloat16.
    BF16 = Some(32), BF16;
    /// 4 bits, one scale for 32.
    Q4_0 = Some(2), Q4_0;
    /// 4 bits, scale and minimum for 32.
    Q4_1 = Some(3), Q4_1;
    /// 5 bits, one scale for 32.
    Q5_0 = Some(8), Q5_0;
    /// 5 bits, scale and minimum for 32.
    Q5_1 = Some(9), Q5_1;
    /// 8 bits, one scale for 32.
    Q8_0 = Some(7), Q8_0;
    /// Q2_K, with more bits for values, outputs and down projections.
    Q2_K = Some(10), Q2_K;
    /// Q2_K nearly everywhere.
    Q2_K_S = Some(21), Q2_K;
    /// Q3_K everywhere.
    Q3_K_S = Some(11), Q3_K;
    /// Q3_K, with Q4_K and Q5_K where it counts.
    Q3_K_M = Some(12), Q3_K;
    /// Q3_K, with Q5_K where it counts.
    Q3_K_L = Some(13), Q3_K;
    /// Q4_K, with Q5_K in the first layers.
    Q4_K_S = Some(14), Q4_K;
    /// Q4_K, with Q6_K for half of the values and down projections.
    Q4_K_M = Some(15), Q4_K;
    /// Q5_K.
    Q5_K_S = Some(16), Q5_K;
    /// Q5_K, with Q6_K for half of the values and down projections.
    Q5_K_M = Some(17), Q5_K;
    /// Q6_K.
    Q6_K = Some(18), Q6_K;
    /// IQ4_NL, with Q5_K where it counts.
    IQ4_NL = Some(25), IQ4_NL;
    /// IQ4_XS, with Q5_K where it counts.
    IQ4_XS = Some(30), IQ4_XS;
    /// Experts in MXFP4, all else in Q8_0.
    MXFP4_MOE = Some(38), MXFP4;
    /// MXFP4 in every matrix: no mixture of llama.cpp's.
    MXFP4 = None, MXFP4;
}

/// Names that mean one of the mixtures, as llama-quantize has them.
const ALIASES: &[(&str, FileType)] =
    &[("Q3_K", FileType::Q3_K_M), ("Q4_K", FileType::Q4_K_M), ("Q5_K", FileType::Q5_K_M)];

impl FileType {
    /// The file type of a name, in any case.
    pub fn parse(name: &str) -> Option<FileType> {
        let own = Self::ALL.iter().find(|t| t.name().eq_ignore_ascii_case(name)).copied();
        own.or_else(|| ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, t)| *t))
    }

    /// Why a name is none, with those that may be meant: the same letters and digits, or those that begin like it.
    pub fn unknown(name: &str) -> String {
        let plain = |name: &str| -> String {
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
        };
        let typed = plain(name);
        let of = |like: &dyn Fn(&str) -> bool| -> Vec<&str> {
            Self::ALL.iter().map(|t| t.name()).filter(|name| like(&plain(name))).collect()
        };
        let same = of(&|name| name == typed);
        let meant =
            if same.is_empty() && typed.len() > 1 { of(&|name| name.starts_with(&typed)) } else { same };
        let hint =
            if meant.is_empty() { String::new() } else { format!(" (is {} meant?)", meant.join(" or ")) };
        format!("{name} is no file type{hint}; there are {}", of(&|_| true).join(", "))
    }
}

impl std::fmt::Display for FileType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_ids_are_unique() {
        for file_type in FileType::ALL {
            assert_eq!(FileType::parse(&file_type.name().to_lowercase()), Some(*file_type));
        }
        assert_eq!(FileType::parse("q4_k"), Some(FileType::Q4_K_M));
        assert_eq!(FileType::parse("Q4_K_X"), None);
        assert!(
            FileType::unknown("q4km").starts_with("q4km is no file type (is Q4_K_M meant?); there are F32,")
        );
        assert!(FileType::unknown("Q5_K_").contains("(is Q5_K_S or Q5_K_M meant?)"));
        assert!(FileType::unknown("out.gguf").starts_with("out.gguf is no file type; there are"));
        let mut ids: Vec<u32> = FileType::ALL.iter().filter_map(|t| t.id()).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
