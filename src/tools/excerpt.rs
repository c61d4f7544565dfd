//! Text made shorter for the model, honestly: beginning and end are kept, and a line between them says how much is missing
//! and how to get it.
//!
//! Pure. Output of processes is cut while it is read, in `host/process.rs`; this is for text that is already there.

/// Room for the line about what was cut, beside its `remedy`.
const NOTE_BYTES_MAX: usize = 64;

/// `text` if it fits `bytes_max`; otherwise its beginning, a line such as `[1234 bytes cut here; remedy]`, and its end, at
/// most `bytes_max` together and cut between characters. With no room for that line, as much of the beginning as fits.
pub fn excerpt(text: &str, bytes_max: usize, remedy: &str) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let Some(room) = bytes_max.checked_sub(NOTE_BYTES_MAX + remedy.len()) else {
        return beginning(text, bytes_max).to_owned();
    };
    let head = beginning(text, room.div_ceil(2));
    let tail = ending(text, room / 2);
    let cut = text.len() - head.len() - tail.len();
    let separator = if remedy.is_empty() { "" } else { "; " };
    format!("{head}\n[{cut} bytes cut here{separator}{remedy}]\n{tail}")
}

/// The longest beginning of `text` that has at most `bytes_max` bytes and ends between characters.
pub fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// The longest end of `text` that has at most `bytes_max` bytes and starts between characters.
pub fn ending(text: &str, bytes_max: usize) -> &str {
    let start = (text.len().saturating_sub(bytes_max)..=text.len()).find(|start| text.is_char_boundary(*start));
    start.and_then(|start| text.get(start..)).unwrap_or_default()
}

/// Lines collected up to a limit, and the number of those that had no room.
#[derive(Debug)]
pub struct Lines {
    text: String,
    bytes_max: usize,
    lines_left: usize,
    /// How many lines had no room.
    pub skipped: usize,
}

impl Lines {
    pub fn new(bytes_max: usize, lines_max: usize) -> Lines {
        Lines { text: String::new(), bytes_max, lines_left: lines_max, skipped: 0 }
    }

    /// Adds a line, or counts it when there is no room; after one that had none, none is added any more.
    pub fn push(&mut self, line: &str) {
        if !self.has_room() || self.text.len() + line.len() + 1 > self.bytes_max {
            return self.skip();
        }
        self.lines_left -= 1;
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Counts a line without looking at it.
    pub fn skip(&mut self) {
        self.skipped += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.skipped == 0
    }

    /// Whether a line could still be added.
    pub fn has_room(&self) -> bool {
        self.skipped == 0 && self.lines_left > 0
    }

    /// The lines, and after them `notes`.
    pub fn text_with(self, notes: &[String]) -> String {
        self.text + &notes.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, check_property};

    #[test]
    fn text_that_fits_is_left_alone() {
        assert_eq!(excerpt("héllo", 6, "x"), "héllo");
        assert_eq!(excerpt("", 0, "x"), "");
    }

    #[test]
    fn a_cut_says_how_much_and_what_to_do() {
        let text = "a".repeat(500) + &"b".repeat(500);
        let cut = excerpt(&text, 200, "ask for less");
        assert_eq!(cut, format!("{}\n[876 bytes cut here; ask for less]\n{}", "a".repeat(62), "b".repeat(62)));
    }

    #[test]
    fn any_cut_is_within_its_limit_and_adds_up() {
        check_property(3_000, |random: &mut Random| {
            let text: String = (0..random.below(300)).map(|_| random.pick(&['a', 'é', '€', '🙂', '\n', '['])).collect();
            let bytes_max = random.below(400);
            let remedy = random.pick(&["", "x", "use offset"]);
            let cut = excerpt(&text, bytes_max, remedy);
            assert!(cut.len() <= bytes_max.max(text.len().min(bytes_max)), "{} of {bytes_max}", cut.len());
            let Some(start) = cut.find(" bytes cut here") else {
                assert!(text.starts_with(&cut));
                return;
            };
            let (before, after) = cut.split_at(start);
            let (head, count) = before.rsplit_once("\n[").unwrap();
            let (_, tail) = after.split_once("]\n").unwrap();
            assert!(text.starts_with(head) && text.ends_with(tail));
            assert_eq!(head.len() + tail.len() + count.parse::<usize>().unwrap(), text.len());
        });
    }

    #[test]
    fn lines_stop_at_either_limit_and_count_the_rest() {
        let mut lines = Lines::new(8, 10);
        for line in ["abc", "defgh", "i"] {
            lines.push(line);
        }
        // `i` would fit, but a list with a hole in it would mislead.
        assert_eq!((lines.skipped, lines.text_with(&["[note]".to_owned()])), (2, "abc\n[note]".to_owned()));
        let mut lines = Lines::new(100, 1);
        lines.push("a");
        assert!(!lines.has_room());
        lines.push("b");
        assert_eq!((lines.skipped, lines.text_with(&[])), (1, "a\n".to_owned()));
    }

    #[test]
    fn both_ends_respect_characters() {
        assert_eq!((beginning("é€", 4), beginning("é€", 1), beginning("é", 9)), ("é", "", "é"));
        assert_eq!((ending("é€", 4), ending("é€", 2), ending("é", 9)), ("€", "", "é"));
    }
}
