//! The names under which the model sees the tools of MCP servers. Pure.
//!
//! `server_tool`, in characters and of a length that every provider takes. A name that would be too long, or that somebody
//! else has, gets a checksum of both names at its end. The same servers with the same tools get the same names in every run.

use std::collections::HashSet;

use crate::config::tools::BUILT_IN;
use crate::conversation::checksum;

/// What every provider takes (OpenAI, Mistral and others, read 2026-11).
const NAME_BYTES_MAX: usize = 64;
/// `_` and eight hexadecimal digits.
const SUM_BYTES: usize = 9;

/// Names that are given already, and the tools that have one: server and tool with a character between them that no name has.
pub struct Given(HashSet<String>);

impl Given {
    /// Names of built-in tools are never given: a tool of a server's must not pass for one.
    pub fn new(taken: &[&str]) -> Given {
        Given(taken.iter().copied().chain(BUILT_IN).map(str::to_owned).collect())
    }

    /// The name of a tool of a server's; `None` when it has one.
    pub fn name(&mut self, server: &str, tool: &str) -> Option<String> {
        let both = format!("{server}\n{tool}");
        let mut name: String = both.chars().map(legal).collect();
        if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            name.insert(0, '_');
        }
        if name.len() > NAME_BYTES_MAX || self.0.contains(&name) {
            let sum = checksum(0, both.as_bytes());
            name.truncate(NAME_BYTES_MAX - SUM_BYTES);
            name.push_str(&format!("_{:08x}", sum >> 32));
        }
        (self.0.insert(both) && self.0.insert(name.clone())).then_some(name)
    }
}

fn legal(c: char) -> char {
    if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, check_property};

    #[test]
    fn a_name_is_server_and_tool() {
        let mut given = Given::new(&["finish"]);
        assert_eq!(given.name("slack-mcp", "post_message").unwrap(), "slack-mcp_post_message");
        assert_eq!(given.name("1p", "get.item/x").unwrap(), "_1p_get_item_x");
        assert_eq!(given.name("slack-mcp", "post_message"), None);
    }

    #[test]
    fn names_that_would_be_the_same_differ_by_a_checksum() {
        let mut given = Given::new(&["a_b"]);
        let names: Vec<String> = ["b", "c.d", "c_d"].iter().map(|tool| given.name("a", tool).unwrap()).collect();
        assert!(names[0].starts_with("a_b_") && names[1] == "a_c_d" && names[2].starts_with("a_c_d_"), "{names:?}");
        let built_in = Given::new(&[]).name("read", "file").unwrap();
        assert!(built_in.starts_with("read_file_"), "{built_in}");
    }

    #[test]
    fn every_name_is_legal_and_there_once() {
        check_property(1_000, |random: &mut Random| {
            let mut given = Given::new(&["finish"]);
            let mut seen = HashSet::new();
            for _ in 0..20 {
                let tool: String =
                    (0..random.below(90)).map(|_| random.pick(&['a', 'b', '/', 'é', '-', '.'])).collect();
                let Some(name) = given.name("9 server", &tool) else { continue };
                assert!(name.len() <= NAME_BYTES_MAX && name.chars().all(|c| c == legal(c)), "{name}");
                assert!(!name.starts_with(|first: char| first.is_ascii_digit() || first == '-'), "{name}");
                assert!(seen.insert(name));
            }
        });
    }
}
