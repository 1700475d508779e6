//! Stop strings: the text ends before the first of them, also where it comes in several tokens. What could still become one is held back,
//! so that no part of it is ever shown.

/// Watches a text as it grows.
#[derive(Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What may be shown now.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    pub text: String,
    /// The text ended: a stop string came right after `text`.
    pub stopped: bool,
}

impl StopStrings {
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    pub fn push(&mut self, text: &str) -> Passed {
        if self.stops.is_empty() {
            return Passed { text: text.to_owned(), stopped: false };
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.held.len() - self.stops.iter().map(|s| beginning_at_end(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(keep);
        Passed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What was held back, when the text ends without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of `text` that are a beginning of `stop`, as many as possible.
fn beginning_at_end(text: &str, stop: &str) -> usize {
    let most = (stop.len() - 1).min(text.len());
    (1..=most).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], parts: &[&str]) -> (Vec<String>, bool) {
        let mut watch = StopStrings::new(stops.iter().map(|s| s.to_string()).collect());
        let mut shown = Vec::new();
        for part in parts {
            let passed = watch.push(part);
            shown.push(passed.text);
            if passed.stopped {
                return (shown, true);
            }
        }
        shown.push(watch.finish());
        (shown, false)
    }

    #[test]
    fn a_stop_string_over_several_parts_is_never_shown() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), (vec!["a ".into(), "".into(), "".into()], true));
        assert_eq!(run(&["END"], &["a E", "N", "S"]), (vec!["a ".into(), "".into(), "ENS".into(), "".into()], false));
        assert_eq!(run(&["END"], &["EN", "END"]), (vec!["".into(), "EN".into()], true));
        assert_eq!(run(&["END"], &["x EN"]), (vec!["x ".into(), "EN".into()], false));
    }

    #[test]
    fn the_first_in_the_text_wins_not_the_first_in_the_list() {
        assert_eq!(run(&["bc", "ab"], &["xabc"]), (vec!["x".into()], true));
        assert_eq!(run(&["€uro", "\u{20ac}!"], &["1 €", "u", "!"]), (vec!["1 ".into(), "".into(), "€u!".into(), "".into()], false));
    }

    #[test]
    fn any_cut_of_the_text_shows_the_same() {
        let text = "aabaabaaab aabaaa end";
        for size in 1..text.len() {
            let parts: Vec<&str> = text.as_bytes().chunks(size).map(|c| std::str::from_utf8(c).unwrap()).collect();
            let (shown, stopped) = run(&["aabaaa", "zzz"], &parts);
            assert_eq!((shown.concat().as_str(), stopped), ("aab", true), "in parts of {size}");
        }
    }
}
