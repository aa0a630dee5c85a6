//! Large pages: how much of what this process has in memory lies in them.
//!
//! A processor finds pages of 4096 bytes by walking through tables, for some thousands of them at a time: weights that are
//! read from end to end for every token are found anew each time, and its own prefetching ends with each page. Pages of
//! 2 MiB take that away.

/// Bytes of these, which are a map's or a buffer's, that lie in large pages; none where the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn large(bytes: &[u8]) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let start = bytes.as_ptr().addr();
    large_in(&text, start..start.checked_add(bytes.len())?)
}

/// Bytes of these that lie in large pages; none where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn large(_: &[u8]) -> Option<u64> {
    None
}

/// The sum over the mappings within a range of addresses, in the words of proc(5). A mapping may begin or end a little
/// outside of it.
#[cfg(any(target_os = "linux", test))]
fn large_in(smaps: &str, range: std::ops::Range<usize>) -> Option<u64> {
    let (mut inside, mut found, mut kib) = (false, false, 0u64);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        if let Some(name) = first.strip_suffix(':') {
            if inside && matches!(name, "AnonHugePages" | "FilePmdMapped") {
                found = true;
                kib = kib.saturating_add(words.next()?.parse().ok()?);
            }
        } else if let Some((from, to)) = first.split_once('-') {
            let address = |text: &str| usize::from_str_radix(text, 16).ok();
            inside = address(from)? < range.end && address(to)? > range.start;
        }
    }
    found.then(|| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_within_the_range_are_counted() {
        let smaps = "00001000-00003000 r--s 00000000 fe:00 12 /model.gguf\nSize: 8 kB\nAnonHugePages: 0 kB\n\
                     FilePmdMapped: 6 kB\nVmFlags: rd sh\n00003000-00004000 rw-p 0 00:00 0\nAnonHugePages: 4 kB\n\
                     00009000-0000a000 rw-p 0 00:00 0\nAnonHugePages: 100 kB\nFilePmdMapped: 0 kB\n";
        assert_eq!(large_in(smaps, 0x1000..0x3000), Some(6 << 10));
        assert_eq!(large_in(smaps, 0x1800..0x3800), Some(10 << 10));
        assert_eq!(large_in(smaps, 0x4000..0x9000), None);
        assert_eq!(large_in("nonsense", 0..100), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_tells() {
        let bytes = vec![1u8; 1 << 20];
        assert!(large(&bytes).is_none_or(|large| large.is_multiple_of(1024)));
    }
}
