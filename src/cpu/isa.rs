//! Which instructions the machine has, as a few ordered bundles, detected once at run time.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// A bundle of instruction-set features that kernels are written for, the least first.
///
/// The order is the order of preference. A bundle falls back on [`Isa::parent`], whose features it has too:
/// that is not always the next one of the order (AVX-512 machines without AVX-VNNI exist).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, whatever the compiler makes of it for its baseline: any machine.
    Reference,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX2 and the 256-bit byte dot product (VNNI) in its VEX encoding.
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 and its byte dot product (VNNI).
    Avx512Vnni,
    /// AVX-512 with VNNI, and AMX tiles of 8-bit integers and bf16.
    Amx,
}

impl Isa {
    /// Every bundle, the least first.
    pub const ALL: [Isa; 6] =
        [Isa::Reference, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vnni, Isa::Amx];

    /// The best bundle of this machine.
    pub fn detect() -> Isa {
        Isa::all_available().last().unwrap_or(Isa::Reference)
    }

    /// The bundles that this machine has, the least first.
    pub fn all_available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Whether this machine has every feature of the bundle.
    pub fn is_available(self) -> bool {
        static AVAILABLE: OnceLock<[bool; Isa::ALL.len()]> = OnceLock::new();
        AVAILABLE.get_or_init(|| Isa::ALL.map(Isa::probe))[self as usize]
    }

    #[cfg(target_arch = "x86_64")]
    fn probe(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = || has!("avx2") && has!("fma") && has!("f16c");
        let avx512 = || avx2() && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        match self {
            Isa::Reference => true,
            Isa::Avx2 => avx2(),
            Isa::AvxVnni => avx2() && has!("avxvnni"),
            Isa::Avx512 => avx512(),
            Isa::Avx512Vnni => avx512() && has!("avx512vnni"),
            Isa::Amx => avx512() && has!("avx512vnni") && super::amx::are_available(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn probe(self) -> bool {
        self == Isa::Reference
    }

    /// The bundle to look at where this one has no kernel of its own; its features are among this one's.
    pub fn parent(self) -> Option<Isa> {
        match self {
            Isa::Reference => None,
            Isa::Avx2 => Some(Isa::Reference),
            Isa::AvxVnni | Isa::Avx512 => Some(Isa::Avx2),
            Isa::Avx512Vnni => Some(Isa::Avx512),
            Isa::Amx => Some(Isa::Avx512Vnni),
        }
    }

    /// The bundle itself where this machine has it.
    ///
    /// # Errors
    /// Where it does not: the message names what was asked for and the best there is.
    pub fn require(self) -> Result<Isa, IsaError> {
        if self.is_available() { Ok(self) } else { Err(IsaError::Unavailable(self, Isa::detect())) }
    }

    /// The name, as `--isa` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Reference => "reference",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Amx => "amx",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    /// The bundle of a name, whether this machine has it or not: see [`Isa::require`].
    fn from_str(name: &str) -> Result<Isa, IsaError> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| IsaError::Unknown(name.to_owned()))
    }
}

/// Why an instruction set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// The name is none of [`Isa::ALL`].
    #[error(
        "no instruction set is called `{0}`: it is one of reference, avx2, avxvnni, avx512, avx512vnni, amx"
    )]
    Unknown(String),
    /// This machine lacks some of its features.
    #[error("the instruction set {0} is not on this machine, whose best is {1}")]
    Unavailable(Isa, Isa),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
    }

    #[test]
    fn an_unknown_name_lists_every_known_one() {
        let message = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(message.contains("`sse9`"));
        assert!(Isa::ALL.iter().all(|isa| message.contains(isa.name())));
    }

    #[test]
    fn the_reference_is_everywhere_and_every_parent_is_less_and_available() {
        assert!(Isa::Reference.is_available());
        for isa in Isa::all_available() {
            assert!(isa <= Isa::detect());
            assert_eq!(isa.require(), Ok(isa));
            if let Some(parent) = isa.parent() {
                assert!(parent < isa && parent.is_available());
            }
        }
    }

    #[test]
    fn asking_for_more_than_there_is_names_both() {
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            let message = isa.require().unwrap_err().to_string();
            assert!(message.contains(isa.name()) && message.contains(Isa::detect().name()));
        }
        assert_eq!(
            IsaError::Unavailable(Isa::Avx512, Isa::Avx2).to_string(),
            "the instruction set avx512 is not on this machine, whose best is avx2"
        );
    }
}
