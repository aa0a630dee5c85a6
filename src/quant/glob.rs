//! Patterns over tensor names: `*` stands for any characters, `?` for one; all others for themselves.

/// A pattern that a whole name matches or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// The pattern as typed.
    pub fn new(pattern: &str) -> Glob {
        Glob(pattern.to_owned())
    }

    /// The pattern as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` matches. Takes at most the product of the lengths in steps.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to take up again when what follows the last star does not fit: one character further.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(c) if *c == b'?' || name.get(n) == Some(c) => {
                    p += 1;
                    n += 1;
                }
                _ => match &mut star {
                    None => return false,
                    Some((at, from)) => {
                        *from += 1;
                        (p, n) = (*at + 1, *from);
                    }
                },
            }
        }
        pattern.iter().skip(p).all(|c| *c == b'*')
    }
}

impl std::fmt::Display for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        let cases = [
            ("blk.*.ffn_down.weight", "blk.12.ffn_down.weight", true),
            ("blk.?.ffn_down.weight", "blk.12.ffn_down.weight", false),
            ("blk.?.*", "blk.3.attn_q.weight", true),
            ("*ffn_down*", "blk.0.ffn_down.weight", true),
            ("ffn_down", "blk.0.ffn_down.weight", false),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "abbbcbc", true),
            ("a*b*c", "abbbcb", false),
            ("output.weight", "output.weight", true),
        ];
        for (pattern, name, matches) in cases {
            assert_eq!(Glob::new(pattern).matches(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let pattern = Glob::new(&"a*".repeat(200));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(10_000)).replace('a', "x")));
    }
}
