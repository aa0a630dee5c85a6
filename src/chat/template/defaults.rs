//! Templates for model files that bring none.
/// x
pub struct NamedTemplate { /// n
 pub name: &'static str, /// s
 pub source: &'static str }
/// d
pub const DEFAULT: &str = "chatml";
/// t
pub const DEFAULTS: &[NamedTemplate] = &[];
