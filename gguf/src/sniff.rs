//! Files that are often taken for GGUF files, named as what they are.

use byteorder::{ByteOrder, LittleEndian};

use crate::{Error, Result};

/// How many bytes of a file are looked at.
pub(crate) const HEAD: usize = 512;

pub(crate) const MAGIC: &[u8; 4] = b"GGUF";

/// Beginnings that tell a kind of file.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"lmgg", "a model in the old `ggml` format of before GGUF; it must be converted again from its source"),
    (b"fmgg", "a model in the old `ggmf` format of before GGUF; it must be converted again from its source"),
    (b"tjgg", "a model in the old `ggjt` format of before GGUF; it must be converted again from its source"),
    (b"algg", "a LoRA adapter in the old `ggla` format of before GGUF"),
    (b"nsgg", "a saved session of llama.cpp, not a model"),
    (b"FUGG", "a GGUF file whose every word is byte-swapped; convert it to little-endian"),
    (
        b"PK\x03\x04",
        "a zip archive (a PyTorch checkpoint, or something still to be unpacked); convert it to GGUF",
    ),
    (b"\x80\x02", "a Python pickle (an old PyTorch checkpoint); convert it to GGUF"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (a Keras checkpoint); convert it to GGUF"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"\x7fELF", "a program (a llamafile?), not a GGUF file"),
    (b"MZ", "a program (a llamafile?), not a GGUF file"),
];

/// Refuse what does not begin as a GGUF file does; `name` is what the error speaks of.
pub(crate) fn require_gguf(name: &str, head: &[u8], len: u64) -> Result<()> {
    if head.starts_with(MAGIC) {
        return Ok(());
    }
    Err(Error::unsupported(name, format!("is {}", describe(head, len))))
}

fn describe(head: &[u8], len: u64) -> String {
    if len == 0 {
        return "an empty file".into();
    }
    if MAGIC.starts_with(head) {
        return format!("the beginning of a GGUF file, cut after {len} bytes");
    }
    let text = String::from_utf8_lossy(head);
    if text.starts_with("version https://git-lfs.github.com/spec/") {
        let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse::<u64>().ok());
        let size = size.map_or(String::new(), |n| format!(" for a file of {n} bytes"));
        return format!("a Git LFS pointer{size}; fetch the file itself (`git lfs pull`)");
    }
    let start = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).to_ascii_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") || start.starts_with("<head") {
        return "a web page (HTML), likely a site's answer instead of the download".into();
    }
    if start.starts_with("<?xml") {
        return "an XML document, likely a site's answer instead of the download".into();
    }
    if let Some((_, what)) = BEGINNINGS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return (*what).into();
    }
    // safetensors: the length of a JSON header, then the header.
    if let (Some(n), Some(b'{')) = (head.get(..8).map(LittleEndian::read_u64), head.get(8))
        && n <= len
    {
        return "a safetensors file; convert it to GGUF".into();
    }
    if start.starts_with('{') || start.starts_with('[') {
        return "a JSON document, not a GGUF file".into();
    }
    if head.iter().all(|b| *b == 0) {
        return "not a GGUF file: it begins with zeros (an unfinished download?)".into();
    }
    let magic = head.get(..4).unwrap_or(head);
    format!("not a GGUF file: it begins with {}, not with {}", magic.escape_ascii(), MAGIC.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_gguf_is_named() {
        let mut safetensors = 64u64.to_le_bytes().to_vec();
        safetensors.extend(b"{\"a\":{\"dtype\":\"F32\"}}");
        safetensors.resize(200, b' ');
        let cases: &[(&[u8], &str)] = &[
            (b"", "empty"),
            (b"GGU", "cut after 3 bytes"),
            (b"  \n<!DOCTYPE html><html>", "web page"),
            (b"<html lang=en>", "web page"),
            (b"<?xml version='1.0'?><Error>", "XML"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4368439584\n",
                "4368439584 bytes",
            ),
            (b"tjgg\x03\0\0\0", "ggjt"),
            (b"lmgg\0\0\0\0", "ggml"),
            (b"PK\x03\x04....", "zip"),
            (b"FUGG\x03\0\0\0", "byte-swapped"),
            (b"{\"error\":\"not found\"}", "JSON"),
            (&[0; 64], "zeros"),
            (b"RIFFxxxx", "RIFF"),
            (&safetensors, "safetensors"),
        ];
        for (bytes, word) in cases {
            let error = require_gguf("model.gguf", bytes, bytes.len() as u64).unwrap_err().to_string();
            assert!(
                error.contains(word) && error.starts_with("model.gguf: is "),
                "{error} should say {word}"
            );
        }
        require_gguf("model.gguf", b"GGUF\x03\0\0\0", 8).unwrap();
    }
}
