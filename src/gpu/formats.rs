//! Which formats a shader decodes.

use chaski_gguf::Format;

/// The text of a format's decoder; none where there is none.
pub(crate) fn shader(format: Format) -> Option<&'static str> {
    match format {
        Format::F32 => Some(include_str!("../../shaders/format/f32.wgsl")),
        Format::F16 => Some(include_str!("../../shaders/format/f16.wgsl")),
        _ => None,
    }
}
