//! File name patterns: `*`, `?`, `[a-z]`, `[!a]` within a name, `**` for any number of directories.
//!
//! Pure, on text. A pattern without `/` is about the last name alone, at any depth: `*.rs` means what people mean by it.
//! Matching takes at most the product of both lengths, whatever the pattern: there is nothing to try exponentially.

use std::ops::RangeInclusive;

/// Nobody needs a longer one, and time grows with it.
const PATTERN_CHARS_MAX: usize = 1_000;

/// A pattern, read.
#[derive(Debug)]
pub struct Glob(Vec<Part>);

/// What stands between two slashes.
#[derive(Debug)]
enum Part {
    /// `**`: any number of names, also none.
    AnyNames,
    Name(Vec<Token>),
}

/// What stands for characters of a name.
#[derive(Debug)]
enum Token {
    /// `*`: any number of characters, also none.
    AnyRun,
    /// `?`
    Any,
    One(char),
    /// `[…]`
    Class {
        is_negated: bool,
        ranges: Vec<RangeInclusive<char>>,
    },
}

impl Glob {
    /// Reads a pattern. Fails with what is wrong, worded for the model.
    pub fn parse(pattern: &str) -> Result<Glob, String> {
        if pattern.chars().count() > PATTERN_CHARS_MAX {
            return Err(format!("is longer than {PATTERN_CHARS_MAX} characters, use a shorter pattern"));
        }
        if pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
            return Err("begins with / or holds .., use a pattern relative to path".to_owned());
        }
        let names: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let mut parts = Vec::new();
        if names.is_empty() {
            return Err("names nothing, use for example *.rs or src/**/*.rs".to_owned());
        }
        if names.len() == 1 {
            parts.push(Part::AnyNames);
        }
        for name in names {
            parts.push(if name == "**" { Part::AnyNames } else { Part::Name(tokens(name)?) });
        }
        Ok(Glob(parts))
    }

    /// Whether all of `path`, names joined by `/`, fits.
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<Vec<char>> = path.split('/').map(|name| name.chars().collect()).collect();
        matches_sequence(
            &self.0,
            &names,
            |part| matches!(part, Part::AnyNames),
            |part, name| match part {
                Part::AnyNames => false,
                Part::Name(tokens) => {
                    matches_sequence(tokens, name, |token| matches!(token, Token::AnyRun), Token::matches)
                }
            },
        )
    }
}

impl Token {
    fn matches(&self, character: &char) -> bool {
        match self {
            Token::AnyRun => false,
            Token::Any => true,
            Token::One(own) => own == character,
            Token::Class { is_negated, ranges } => ranges.iter().any(|range| range.contains(character)) != *is_negated,
        }
    }
}

/// Whether `pattern` fits all of `items`, where a run fits any number of them and others fit one. After a mismatch only
/// the last run is given one item more: what came before it fits already, and giving an earlier run more cannot help.
fn matches_sequence<P, T>(
    pattern: &[P],
    items: &[T],
    is_run: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut item) = (0, 0);
    let mut last_run: Option<(usize, usize)> = None;
    while let Some(current) = items.get(item) {
        match pattern.get(at) {
            Some(piece) if is_run(piece) => {
                at += 1;
                last_run = Some((at, item));
            }
            Some(piece) if fits(piece, current) => {
                at += 1;
                item += 1;
            }
            _ => {
                let Some((after_run, given)) = last_run else { return false };
                at = after_run;
                item = given + 1;
                last_run = Some((after_run, item));
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(is_run)
}

fn tokens(name: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = name.chars();
    while let Some(character) = rest.next() {
        tokens.push(match character {
            '*' => Token::AnyRun,
            '?' => Token::Any,
            '\\' => Token::One(rest.next().unwrap_or('\\')),
            '{' | '}' => {
                return Err(
                    "holds { or }, which are not understood: ask for one pattern at a time, or write \\{".to_owned()
                );
            }
            '[' => match class(rest.as_str()) {
                Some((token, after)) => {
                    rest = after.chars();
                    token
                }
                // Not closed: an ordinary character.
                None => Token::One('['),
            },
            other => Token::One(other),
        });
    }
    Ok(tokens)
}

/// The class whose text begins after its `[`, and what follows its `]`.
fn class(text: &str) -> Option<(Token, &str)> {
    let inside = text.strip_prefix(['!', '^']);
    let is_negated = inside.is_some();
    let inside = inside.unwrap_or(text);
    // A `]` in first place is an ordinary character.
    let first = inside.chars().next()?;
    let (_, beyond_first) = inside.split_at(first.len_utf8());
    let (_, after) = beyond_first.split_once(']')?;
    let members: Vec<char> = inside.get(..inside.len() - after.len() - 1)?.chars().collect();
    let mut ranges = Vec::new();
    let mut rest = members.as_slice();
    loop {
        rest = match rest {
            [] => return Some((Token::Class { is_negated, ranges }, after)),
            [from, '-', to, rest @ ..] => {
                ranges.push(*from..=*to);
                rest
            }
            [one, rest @ ..] => {
                ranges.push(*one..=*one);
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, check_property};

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn the_table_of_patterns() {
        let fitting = [
            ("*.rs", "main.rs"),
            ("*.rs", "a/b/main.rs"),
            ("*", ".hidden"),
            ("src/*.rs", "src/a.rs"),
            ("src/**/*.rs", "src/a.rs"),
            ("src/**/*.rs", "src/a/b/c.rs"),
            ("**/test/*", "a/test/x"),
            ("**/test/*", "test/x"),
            ("src/**", "src/a/b"),
            ("**", "a/b"),
            ("?.txt", "é.txt"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[^a]x", "bx"),
            ("[]]x", "]x"),
            ("[a-]x", "-x"),
            ("a[b", "a[b"),
            ("[[]id].ts", "[id].ts"),
            (r"\*", "*"),
            (r"\[id\].ts", "[id].ts"),
            ("./a/b", "a/b"),
            ("a//b", "a/b"),
            ("a**b", "axxb"),
            ("a/**/**/b", "a/b"),
            ("*a*b*", "xxaxxbxx"),
            ("makefile", "deep/makefile"),
        ];
        for (pattern, path) in fitting {
            assert!(matches(pattern, path), "{pattern} should fit {path}");
        }
        let not_fitting = [
            ("*.rs", "main.rs.bak"),
            ("src/*.rs", "src/a/b.rs"),
            ("src/*.rs", "x/src/a.rs"),
            ("?", "ab"),
            ("?", ""),
            ("[a-c]x", "dx"),
            ("[!a-c]x", "ax"),
            ("*.RS", "a.rs"),
            ("a/**/b", "a/c"),
            ("src/**", "srcs/a"),
            ("[]x", "]x"),
        ];
        for (pattern, path) in not_fitting {
            assert!(!matches(pattern, path), "{pattern} should not fit {path}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for pattern in ["", "/", "/etc/*", "../*", "a/../b", "*.{ts,tsx}", "."] {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
        assert!(Glob::parse(&"x".repeat(PATTERN_CHARS_MAX + 1)).is_err());
    }

    #[test]
    fn a_pattern_made_to_take_for_ever_does_not() {
        let pattern = "*a".repeat(300) + "*b";
        assert!(!matches(&pattern, &"a".repeat(3_000)));
        let pattern = "**/a/".repeat(100) + "b";
        assert!(!matches(&pattern, &"a/".repeat(1_000)));
    }

    #[test]
    fn agrees_with_the_plain_definition() {
        /// What the pattern means, written without care for time.
        fn plain(pattern: &[char], text: &[char]) -> bool {
            match (pattern, text) {
                ([], []) => true,
                (['*', rest @ ..], _) => {
                    plain(rest, text) || matches!(text, [first, after @ ..] if *first != '/' && plain(pattern, after))
                }
                (['?', rest @ ..], [first, after @ ..]) => *first != '/' && plain(rest, after),
                ([own, rest @ ..], [first, after @ ..]) => own == first && plain(rest, after),
                _ => false,
            }
        }
        check_property(5_000, |random: &mut Random| {
            let mut made = |letters: &[char]| -> String {
                (0..1 + random.below(8)).map(|_| random.pick(letters)).collect::<String>()
            };
            let (pattern, path) = (made(&['a', 'b', '*', '?', '/']), made(&['a', 'b', '/']));
            // Two stars have another meaning, a pattern of one name too, and slashes are tidied up.
            let odd = |text: &str| text.contains("//") || text.starts_with('/') || text.ends_with('/');
            if pattern.contains("**") || !pattern.contains('/') || odd(&pattern) || odd(&path) {
                return;
            }
            let letters = |text: &str| text.chars().collect::<Vec<char>>();
            assert_eq!(matches(&pattern, &path), plain(&letters(&pattern), &letters(&path)), "{pattern} {path}");
        });
    }

    #[test]
    fn any_pattern_is_read_without_a_panic() {
        check_property(3_000, |random: &mut Random| {
            let letters = ['[', ']', '!', '-', '\\', '*', '/', 'é', 'a', '^', '.'];
            let pattern: String = (0..random.below(12)).map(|_| random.pick(&letters)).collect();
            if let Ok(glob) = Glob::parse(&pattern) {
                glob.matches("a/é");
            }
        });
    }
}
