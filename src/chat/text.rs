//! The model's text on its way out: stop strings held back until they are certain, reasoning told
//! apart from the answer.

/// Passes text on until one of the stop strings is complete; what might become one is held back.
#[derive(Debug, Default)]
pub struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// Stop at any of these; empty ones are left out.
    pub fn new(stops: &[String]) -> Stops {
        Stops { stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }
    /// Take more text: what is certain to come before any stop string, and whether one is complete.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.stops.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }
    /// The text held back, now that no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// How many bytes at the end of `text` are the start of `pattern`, which is not whole in it.
fn overlap(text: &str, pattern: &str) -> usize {
    let most = text.len().min(pattern.len().saturating_sub(1));
    (1..=most).rev().find(|n| text.as_bytes().ends_with(&pattern.as_bytes()[..*n])).unwrap_or(0)
}

/// A piece of the model's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text, without the marks around reasoning.
    pub text: String,
    /// Whether it is reasoning, and not the answer.
    pub reasoning: bool,
}

/// Tells reasoning from the answer by the marks around it. Reasoning comes before the answer: once the answer has
/// begun, all that follows is answer.
#[derive(Debug)]
pub struct Reasoning {
    /// The mark that opens reasoning and the one that closes it; none for models that do not reason.
    marks: Option<(String, String)>,
    inside: bool,
    /// Whether white space is dropped before the next text: after a mark.
    trim: bool,
    /// Whether the answer has begun. A mark in the middle of it is text: the model writes about it.
    answering: bool,
    held: String,
}

impl Reasoning {
    /// `inside` says that the prompt has opened reasoning already.
    pub fn new(marks: Option<(&str, &str)>, inside: bool) -> Reasoning {
        let marks = marks.map(|(a, b)| (a.to_owned(), b.to_owned()));
        let inside = inside && marks.is_some();
        Reasoning { marks, inside, trim: inside, answering: false, held: String::new() }
    }
    /// Take more text; the pieces that are certain.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let Some((open, close)) = &self.marks else {
            return vec![Piece { text: text.into(), reasoning: false }];
        };
        self.held.push_str(text);
        let mut pieces = Vec::new();
        let mut add = |text: &str, reasoning: bool, trim: &mut bool| {
            let text = if *trim { text.trim_start() } else { text };
            if !text.is_empty() {
                *trim = false;
                pieces.push(Piece { text: text.into(), reasoning });
            }
        };
        loop {
            let mark = if self.inside { close } else { open };
            let found = self.held.find(mark.as_str());
            let before = &self.held[..found.unwrap_or(self.held.len() - overlap(&self.held, mark))];
            if !self.inside && (self.answering || !before.trim_start().is_empty()) {
                self.answering = true;
                add(&self.held, false, &mut self.trim);
                self.held.clear();
                return pieces;
            }
            add(before, self.inside, &mut self.trim);
            let Some(at) = found else {
                self.held.drain(..before.len());
                return pieces;
            };
            self.held.drain(..at + mark.len());
            self.inside = !self.inside;
            self.trim = true;
        }
    }
    /// What was held back, now that no more comes.
    pub fn finish(&mut self) -> Option<Piece> {
        let text = std::mem::take(&mut self.held);
        (!text.is_empty()).then_some(Piece { text, reasoning: self.inside })
    }
}

/// The whole way out: stop strings first, then reasoning told from the answer.
#[derive(Debug)]
pub struct Outgoing {
    stops: Stops,
    reasoning: Reasoning,
}

impl Outgoing {
    /// Text passes through one, then through the other.
    pub fn new(stops: Stops, reasoning: Reasoning) -> Outgoing {
        Outgoing { stops, reasoning }
    }
    /// Take more text: the pieces that are certain, and whether a stop string is complete. Then these are the last.
    pub fn push(&mut self, text: &str) -> (Vec<Piece>, bool) {
        let (text, stopped) = self.stops.push(text);
        let mut pieces = self.reasoning.push(&text);
        if stopped {
            pieces.extend(self.reasoning.finish());
        }
        (pieces, stopped)
    }
    /// What was held back, now that no more comes.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = self.reasoning.push(&self.stops.finish());
        pieces.extend(self.reasoning.finish());
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(stops: &[&str], texts: &[&str]) -> (String, bool) {
        let mut filter = Stops::new(&stops.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut out = String::new();
        for text in texts {
            let (more, stop) = filter.push(text);
            out.push_str(&more);
            if stop {
                return (out, true);
            }
        }
        (out + &filter.finish(), false)
    }

    #[test]
    fn a_stop_string_cuts_the_text_also_across_pieces() {
        assert_eq!(stopped(&["END"], &["abc EN", "D def"]), ("abc ".into(), true));
        assert_eq!(stopped(&["END", "c "], &["abc EN", "D def"]), ("ab".into(), true));
        assert_eq!(stopped(&["é!"], &["caf", "é", "!x"]), ("caf".into(), true));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_passed_on() {
        assert_eq!(stopped(&["END"], &["abc EN", "OUGH"]), ("abc ENOUGH".into(), false));
        assert_eq!(stopped(&["END"], &["abc EN"]), ("abc EN".into(), false));
        assert_eq!(stopped(&[""], &["abc"]), ("abc".into(), false));
    }

    #[test]
    fn reasoning_is_told_from_the_answer_also_across_pieces() {
        let mut r = Reasoning::new(Some(("<think>", "</think>")), false);
        let mut all = Vec::new();
        for text in ["<thi", "nk>\nhm, ", "2 < 3</th", "ink>\n\nYes", "."] {
            all.extend(r.push(text));
        }
        all.extend(r.finish());
        let join = |reasoning: bool| -> String {
            all.iter().filter(|p| p.reasoning == reasoning).map(|p| p.text.as_str()).collect()
        };
        assert_eq!((join(true).as_str(), join(false).as_str()), ("hm, 2 < 3", "Yes."));
    }

    #[test]
    fn a_prompt_may_have_opened_the_reasoning() {
        let mut r = Reasoning::new(Some(("<think>", "</think>")), true);
        let pieces = r.push("so</think>No");
        assert_eq!(pieces[0], Piece { text: "so".into(), reasoning: true });
        assert_eq!(pieces[1], Piece { text: "No".into(), reasoning: false });
    }

    #[test]
    fn without_marks_all_is_answer() {
        let mut r = Reasoning::new(None, true);
        assert_eq!(r.push(" <think>x"), [Piece { text: " <think>x".into(), reasoning: false }]);
    }

    #[test]
    fn a_mark_within_the_answer_is_text() {
        let mut r = Reasoning::new(Some(("<think>", "</think>")), true);
        let mut all = r.push("hm</think>\n\nThe tag <think> opens");
        all.extend(r.push(" it, <thi"));
        all.extend(r.finish());
        let answer: String = all.iter().filter(|p| !p.reasoning).map(|p| p.text.as_str()).collect();
        assert_eq!((all[0].text.as_str(), answer.as_str()), ("hm", "The tag <think> opens it, <thi"));
    }

    #[test]
    fn what_stands_before_a_stop_string_is_passed_on_even_where_it_looks_like_a_mark() {
        let reasoning = Reasoning::new(Some(("<think>", "</think>")), true);
        let mut out = Outgoing::new(Stops::new(&["END".into()]), reasoning);
        let (mut pieces, stopped) = out.push("a </EN");
        assert!(!stopped);
        let (rest, stopped) = out.push("D b");
        pieces.extend(rest);
        let text: String = pieces.iter().map(|p| p.text.as_str()).collect();
        assert_eq!((text.as_str(), stopped), ("a </", true));
        assert_eq!(out.finish(), []);
    }

    #[test]
    fn what_is_held_back_by_both_comes_in_order_at_the_end() {
        let reasoning = Reasoning::new(Some(("<think>", "</think>")), true);
        let mut out = Outgoing::new(Stops::new(&["END".into()]), reasoning);
        let (mut pieces, _) = out.push("a </thEN");
        pieces.extend(out.finish());
        let text: String = pieces.iter().map(|p| p.text.as_str()).collect();
        assert_eq!(text, "a </thEN");
    }
}
