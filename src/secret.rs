//! Secrets: values that reach a provider or a tool and nobody else.
//!
//! [`Secret`] is one such value; printing it prints nothing of it. [`Secrets`] knows all of them and takes them out of text
//! that leaves: to the model, the log, the termination message. It matches exact values, also as base64 or percent-encoded,
//! because that is how tools and error pages give them back. It refuses to guess: what is secret, `config` decides.
//!
//! What may surprise: a secret is also found when line ends stand in it (`base64` and `fold` put them there), and text that
//! is cut must be masked first, because half a secret matches nothing; [`Secrets::mask_sides`] is for that.

use std::borrow::Cow;
use std::fmt;

use crate::sort;

/// A secret shorter than this is not masked: it would also be found where nobody wrote it. `config` warns about it.
pub const SECRET_BYTES_MIN: usize = 6;

/// A line of this many bytes in a secret of several lines is a secret of its own: `grep` shows single lines of a key.
const SECRET_LINE_BYTES_MIN: usize = 16;

/// One secret value. Its `Debug` prints nothing of it.
#[derive(Clone, PartialEq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself, for the one place that hands it over.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// All secrets of the run.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// What to look for and what to write instead, the longest first, so that no part of a longer one is left over.
    needles: Vec<(Secret, String)>,
}

impl Secrets {
    /// Adds a secret under the name that stands in its place. Values shorter than [`SECRET_BYTES_MIN`] are left alone.
    pub fn add(&mut self, name: &str, value: &str) {
        let value = value.trim();
        if value.len() < SECRET_BYTES_MIN {
            return;
        }
        let mask = format!("[secret {name}]");
        self.add_forms(value, &mask);
        if value.contains('\n') {
            let lines = value.lines().map(str::trim);
            let telling = lines.filter(|line| line.len() >= SECRET_LINE_BYTES_MIN && !line.starts_with("-----"));
            telling.for_each(|line| self.add_forms(line, &mask));
        }
        self.needles = sort::by_key_reversed(self.needles.drain(..), |(needle, _)| needle.0.len());
    }

    fn add_forms(&mut self, value: &str, mask: &str) {
        let mut forms =
            vec![value.to_owned(), json_escaped(value), percent_encoded(value, true), percent_encoded(value, false)];
        forms.extend(base64_cores(value.as_bytes()));
        for form in forms {
            if form.len() >= SECRET_BYTES_MIN && !self.needles.iter().any(|(needle, _)| needle.0 == form) {
                self.needles.push((Secret(form), mask.to_owned()));
            }
        }
    }

    /// The text with every secret replaced by its name.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let joined = without_line_ends(text);
        // Nearly every text: what stands in it still does without its line ends, unless it has some itself.
        let stands_in =
            |needle: &str| joined.contains(needle) || (needle.bytes().any(is_line_end) && text.contains(needle));
        if !self.needles.iter().any(|(needle, _)| stands_in(needle.reveal())) {
            return Cow::Borrowed(text);
        }
        let mut masked = text.to_owned();
        for (needle, mask) in &self.needles {
            masked = masked.replace(needle.reveal(), mask);
        }
        if text.bytes().any(is_line_end) {
            let joined = without_line_ends(&masked).into_owned();
            for (needle, mask) in &self.needles {
                if joined.contains(needle.reveal()) {
                    masked = replace_over_line_ends(&masked, needle.reveal(), mask);
                }
            }
        }
        Cow::Owned(masked)
    }

    /// How many bytes on either side of a cut can be part of a secret that the cut went through, line ends included.
    pub fn margin_bytes(&self) -> usize {
        // At most a line end every 32 bytes: nobody wraps at less.
        self.needles.first().map_or(0, |(needle, _)| needle.0.len() + needle.0.len() / 16 + 2)
    }

    /// Masks what is left on both sides of a cut and takes [`Secrets::margin_bytes`] off each side of it, where the rest of
    /// a secret may stand that the cut went through.
    pub fn mask_sides(&self, head: &str, tail: &str) -> (String, String) {
        let margin = self.margin_bytes();
        let (head, tail) = (self.mask(head), self.mask(tail));
        let end = (0..=head.len().saturating_sub(margin)).rev().find(|end| head.is_char_boundary(*end));
        let start = (margin.min(tail.len())..=tail.len()).find(|start| tail.is_char_boundary(*start));
        let head = end.and_then(|end| head.get(..end)).unwrap_or_default();
        let tail = start.and_then(|start| tail.get(start..)).unwrap_or_default();
        (head.to_owned(), tail.to_owned())
    }

    /// Whether the text has what [`Secrets::mask`] writes in the place of a secret.
    pub fn has_mask(&self, text: &str) -> bool {
        self.needles.iter().any(|(_, mask)| text.contains(mask.as_str()))
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Every result goes through here. One character is looked for a word at a time, one of two is not.
fn without_line_ends(text: &str) -> Cow<'_, str> {
    let mut joined = String::with_capacity(text.len());
    match (text.contains('\n'), text.contains('\r')) {
        (false, false) => return Cow::Borrowed(text),
        (true, false) => joined.extend(text.split('\n')),
        (_, true) => joined.extend(text.split('\n').flat_map(|line| line.split('\r'))),
    }
    Cow::Owned(joined)
}

/// Replaces `needle` wherever it stands in `text` with line ends in between.
fn replace_over_line_ends(text: &str, needle: &str, mask: &str) -> String {
    let joined = without_line_ends(text);
    // Where each byte of `joined` is in `text`.
    let places: Vec<usize> =
        text.bytes().enumerate().filter(|(_, byte)| !is_line_end(*byte)).map(|(place, _)| place).collect();
    let mut replaced = String::new();
    let mut done = 0;
    for (start, _) in joined.match_indices(needle) {
        let (Some(first), Some(last)) = (places.get(start), places.get(start + needle.len() - 1)) else { break };
        replaced.push_str(text.get(done..*first).unwrap_or_default());
        replaced.push_str(mask);
        done = last + 1;
    }
    replaced.push_str(text.get(done..).unwrap_or_default());
    replaced
}

/// As in a JSON string, without the quotes.
fn json_escaped(value: &str) -> String {
    let quoted = serde_json::Value::String(value.to_owned()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// RFC 3986, section 2.1: everything but unreserved characters. Both cases of the hexadecimal digits are in use.
fn percent_encoded(value: &str, is_upper: bool) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            _ if is_upper => text.push_str(&format!("%{byte:02X}")),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
        text
    })
}

/// The base64 characters that the value determines alone, for each of the three places where it can begin in a group of
/// three bytes, in the standard and the URL alphabet. The characters at both ends mix with the neighbors and are left out.
fn base64_cores(value: &[u8]) -> Vec<String> {
    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut cores = Vec::new();
    for shift in 0..3_usize {
        let bits = |index: usize| -> u8 {
            // Bit `index` of the stream whose first `shift` bytes are unknown.
            let byte = value.get(index / 8 - shift).copied().unwrap_or(0);
            byte >> (7 - index % 8) & 1
        };
        let first = (shift * 8).div_ceil(6);
        let end = (shift + value.len()) * 8 / 6;
        let core: String = (first..end)
            .map(|group| {
                let sextet = (0..6).fold(0, |sextet, bit| sextet << 1 | bits(group * 6 + bit));
                char::from(STANDARD[usize::from(sextet)])
            })
            .collect();
        let url_core = core.replace('+', "-").replace('/', "_");
        if url_core != core {
            cores.push(url_core);
        }
        cores.push(core);
    }
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let mut secrets = Secrets::default();
        secrets.add("KEY", "s3cr3t/v+lue?");
        secrets
    }

    #[test]
    fn masks_plain_values() {
        assert_eq!(secrets().mask("a s3cr3t/v+lue? b"), "a [secret KEY] b");
    }

    #[test]
    fn masks_percent_encoded_values() {
        assert_eq!(secrets().mask("?k=s3cr3t%2Fv%2Blue%3F&x"), "?k=[secret KEY]&x");
    }

    #[test]
    fn masks_base64_at_every_alignment() {
        // base64 of "s3cr3t/v+lue?", "xs3cr3t/v+lue?y" and "xxs3cr3t/v+lue?yz", made with coreutils' base64.
        for text in ["czNjcjN0L3YrbHVlPw==", "eHMzY3IzdC92K2x1ZT95", "eHhzM2NyM3QvditsdWU/eXo="] {
            let masked = secrets().mask(text).into_owned();
            assert!(masked.contains("[secret KEY]"), "{text} became {masked}");
        }
    }

    #[test]
    fn masks_the_longer_of_two_secrets_first() {
        let mut secrets = Secrets::default();
        secrets.add("SHORT", "abcdef");
        secrets.add("LONG", "abcdefghi");
        assert_eq!(secrets.mask("abcdefghi abcdef"), "[secret LONG] [secret SHORT]");
    }

    #[test]
    fn leaves_short_values_alone() {
        let mut secrets = Secrets::default();
        secrets.add("PIN", "12345");
        assert_eq!(secrets.mask("12345"), "12345");
    }

    #[test]
    fn masks_over_line_ends() {
        let mut secrets = Secrets::default();
        let key = "sk-".to_owned() + &"0123456789abcdef".repeat(8);
        secrets.add("KEY", &key);
        assert_eq!(secrets.mask(&format!("a\n{}\r\n{}\nb", &key[..70], &key[70..])), "a\n[secret KEY]\nb");
        // `base64` puts a line end after 76 characters; what is left at both ends says less than two bytes.
        let wrapped = "c2stMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFi\n\
                       Y2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0\n\
                       NTY3ODlhYmNkZWY=";
        let masked = secrets.mask(wrapped).into_owned();
        assert!(masked.starts_with("[secret KEY]") && masked.len() < 20, "{masked}");
    }

    #[test]
    fn masks_whatever_ends_the_lines() {
        let mut secrets = Secrets::default();
        secrets.add("KEY", "0123456789abcdef");
        for end in ["\n", "\r", "\r\n", "\n\n"] {
            let text = format!("é{end}01234567{end}89abcdef{end}0123456789abcdef{end}");
            let masked = format!("é{end}[secret KEY]{end}[secret KEY]{end}");
            assert_eq!(secrets.mask(&text), masked);
            // A secret that has line ends itself.
            let mut secrets = Secrets::default();
            secrets.add("LINES", &format!("one{end}two"));
            assert_eq!(secrets.mask(&format!("{end}one{end}two{end}")), format!("{end}[secret LINES]{end}"));
            assert!(matches!(secrets.mask(&format!("one{end}{end}{end}")), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn masks_single_lines_of_a_key() {
        let mut secrets = Secrets::default();
        secrets.add(
            "KEY",
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END-----",
        );
        assert_eq!(secrets.mask("x: AQEFAASCBKcwggSjAgEAAoIB"), "x: [secret KEY]");
        assert_eq!(secrets.mask("-----BEGIN PRIVATE KEY-----"), "-----BEGIN PRIVATE KEY-----");
    }

    #[test]
    fn no_part_of_a_secret_is_left_beside_a_cut() {
        let secret = "0123456789876543";
        let mut secrets = Secrets::default();
        secrets.add("KEY", secret);
        let text = format!("{}{secret}{}{secret}{}", "x".repeat(90), "é".repeat(40), "z".repeat(90));
        for cut in (0..=text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let (head, tail) = secrets.mask_sides(&text[..cut], &text[cut..]);
            assert!(!format!("{head}{tail}").contains(|c: char| c.is_ascii_digit()), "{cut}: {head} {tail}");
        }
    }

    #[test]
    fn debug_prints_nothing_of_the_value() {
        assert!(!format!("{:?}", secrets()).contains("s3cr3t"));
    }
}
