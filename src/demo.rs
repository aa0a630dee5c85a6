//! The demo model, part of the program: a few million weights that answer questions about chaski and about quantization,
//! so that there is something to run on a machine that has nothing but this repository.
//!
//! `assets/demo.gguf` is embedded by the feature `demo` (on by default) and read in place, like a mapped file.
//! `tools/demo-model/` trains it.

/// The name that stands for the embedded model wherever a file is asked for.
pub const NAME: &str = "demo";

/// The bytes of the file, which [`chaski_gguf::Gguf::from_static`] takes as they are: they begin at a multiple of 64. None in
/// a build without the feature `demo`.
pub fn bytes() -> Option<&'static [u8]> {
    #[cfg(feature = "demo")]
    {
        use chaski_gguf::Aligned;

        // Alone, `include_bytes!` may begin anywhere; the blocks of a tensor are borrowed in place.
        static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../assets/demo.gguf"));
        Some(&FILE.0)
    }
    #[cfg(not(feature = "demo"))]
    None
}
