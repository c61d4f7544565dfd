//! What the tools did in this run: a count for each tool, and the calls themselves with their results, bounded. Pure.
//!
//! The conversation may be shortened on the way; this stays, so that the verifier sees what really came back and a run
//! that ends early can say what it did. It follows the records, as the conversation does. Surprising: the model's own words
//! are not in it, because the verifier must not be talked into anything.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::conversation::{Record, ToolCall};
use crate::secret::Secrets;
use crate::sort;
use crate::tools::excerpt;

/// Calls that are kept; the oldest go first.
const STEPS_MAX: usize = 400;
/// Bytes of a call's arguments that are kept.
const ARGUMENTS_BYTES_MAX: usize = 1024;
/// Bytes of a call's result that are kept.
const RESULT_BYTES_MAX: usize = 4096;
/// Names that are counted one by one: a model can make up any number of them.
const NAMES_MAX: usize = 64;
/// Characters of the shortest word by which evidence can name a call.
const WORD_CHARS_MIN: usize = 4;

/// The calls of the run.
pub struct Trail {
    /// Whether calls are kept, and not only counted.
    keeps_steps: bool,
    steps: VecDeque<Step>,
    /// Calls that were made and are not kept.
    forgotten: usize,
    /// Calls of the last turn that have no result yet.
    open: Vec<ToolCall>,
    /// Succeeded and failed, by tool.
    counts: BTreeMap<String, (u64, u64)>,
    /// A tool that says how the run ends, and does nothing else.
    except: &'static str,
    /// Kept texts are cut, and half a secret could no longer be masked.
    secrets: Secrets,
}

/// One call and what came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Counted from 1.
    pub number: usize,
    pub tool: String,
    pub arguments: String,
    pub result: String,
    pub is_error: bool,
}

impl Step {
    fn bytes(&self) -> usize {
        self.tool.len() + self.arguments.len() + self.result.len()
    }
}

impl Trail {
    /// Calls of the tool `except` do not count. What is kept is masked.
    pub fn new(keeps_steps: bool, except: &'static str, secrets: Secrets) -> Trail {
        let (steps, open, counts) = Default::default();
        Trail { keeps_steps, steps, forgotten: 0, open, counts, except, secrets }
    }

    /// Follows the run by one record.
    pub fn add(&mut self, record: &Record) {
        match record {
            Record::Turn(turn) => {
                self.open = turn.tool_calls().filter(|call| call.name != self.except).cloned().collect()
            }
            Record::ToolResult(result) => {
                let Some(place) = self.open.iter().position(|call| call.id == result.call_id) else { return };
                let call = self.open.remove(place);
                self.count(&call.name, result.is_error);
                if self.keeps_steps {
                    self.keep(&call, &result.text, result.is_error);
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, name: &str, is_error: bool) {
        let is_listed = self.counts.contains_key(name) || self.counts.len() < NAMES_MAX;
        let name = if is_listed { excerpt::beginning(name, 64) } else { "other" };
        let (succeeded, failed) = self.counts.entry(name.to_owned()).or_default();
        *if is_error { failed } else { succeeded } += 1;
    }

    fn keep(&mut self, call: &ToolCall, result: &str, is_error: bool) {
        let arguments = match &call.arguments {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        self.steps.push_back(Step {
            number: self.forgotten + self.steps.len() + 1,
            tool: call.name.clone(),
            arguments: excerpt::excerpt(&self.secrets.mask(&arguments), ARGUMENTS_BYTES_MAX, ""),
            result: excerpt::excerpt(&self.secrets.mask(result), RESULT_BYTES_MAX, ""),
            is_error,
        });
        if self.steps.len() > STEPS_MAX {
            self.steps.pop_front();
            self.forgotten += 1;
        }
    }

    /// What was done, on one line: `12 tool calls (read_file 10, shell 2 of which 1 failed)`.
    pub fn summary(&self) -> String {
        let total: u64 = self.counts.values().map(|(succeeded, failed)| succeeded + failed).sum();
        let of_each: Vec<String> = self
            .counts
            .iter()
            .map(|(name, (succeeded, failed))| match failed {
                0 => format!("{name} {succeeded}"),
                _ => format!("{name} {} of which {failed} failed", succeeded + failed),
            })
            .collect();
        match total {
            0 => "no tool calls".to_owned(),
            _ => format!("{total} tool calls ({})", of_each.join(", ")),
        }
    }

    /// The calls that bear on the evidence, within `bytes_max`: first those that it names, then the newest; in the order in
    /// which they were made. And how many others there are.
    pub fn bearing_on(&self, evidence: &[&str], bytes_max: usize) -> (Vec<&Step>, usize) {
        let named: HashSet<String> = evidence.iter().flat_map(|text| words(text)).collect();
        let score =
            |step: &Step| words(&step.arguments).chain(words(&step.tool)).filter(|word| named.contains(word)).count();
        // The newest first, and then those that are named before the others.
        let ranked = sort::by_key_reversed(self.steps.iter().rev(), |step| usize::from(score(step) > 0));
        let mut bytes = 0;
        let mut shown: Vec<&Step> = Vec::new();
        for step in ranked {
            if bytes + step.bytes() <= bytes_max {
                bytes += step.bytes();
                shown.push(step);
            }
        }
        let shown = sort::by_key(shown, |step| step.number as u64);
        let others = self.forgotten + self.steps.len() - shown.len();
        (shown, others)
    }
}

/// Words that can name something: paths, names, numbers; of a path also its last part.
fn words(text: &str) -> impl Iterator<Item = String> {
    let whole =
        text.split(|c: char| !(c.is_alphanumeric() || "_-./".contains(c))).map(|word| word.trim_matches(['.', '-']));
    let both = whole.flat_map(|word| [Some(word), word.rsplit_once('/').map(|(_, last)| last)]).flatten();
    both.filter(|word| word.chars().count() >= WORD_CHARS_MIN).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{Part, ToolResult, Turn};
    use serde_json::json;

    fn trail(calls: &[(&str, &str, &str)]) -> Trail {
        let mut trail = Trail::new(true, "finish", Secrets::default());
        for (tool, path, result) in calls {
            let call = ToolCall { id: "1".to_owned(), name: (*tool).to_owned(), arguments: json!({"path": path}) };
            trail.add(&Record::Turn(Turn {
                parts: vec![Part::ToolCall(call)],
                stop_reason: crate::conversation::StopReason::ToolCalls,
                usage: crate::conversation::Usage::default(),
            }));
            let text = (*result).to_owned();
            trail.add(&Record::ToolResult(ToolResult { call_id: "1".to_owned(), text, is_error: false }));
        }
        trail
    }

    #[test]
    fn what_the_evidence_names_goes_before_what_is_newer() {
        let long = "x".repeat(900);
        let trail = trail(&[("read_file", "docs/report.md", &long), ("shell", "a", &long), ("shell", "b", &long)]);
        let numbers = |evidence: &str, bytes_max| {
            let (steps, others) = trail.bearing_on(&[evidence], bytes_max);
            (steps.iter().map(|step| step.number).collect::<Vec<_>>(), others)
        };
        assert_eq!(numbers("see `report.md`.", 1000), (vec![1], 2));
        assert_eq!(numbers("nothing of it", 1000), (vec![3], 2));
        assert_eq!(numbers("report.md", 2000), (vec![1, 3], 1));
        assert_eq!(numbers("report.md", 9000), (vec![1, 2, 3], 0));
    }

    #[test]
    fn it_is_bounded_and_counts_what_it_forgets() {
        let calls: Vec<(String, String)> =
            (0..STEPS_MAX + 7).map(|number| (format!("tool{number}"), "y".repeat(10_000))).collect();
        let calls: Vec<(&str, &str, &str)> =
            calls.iter().map(|(tool, result)| (tool.as_str(), "p", result.as_str())).collect();
        let trail = trail(&calls);
        assert_eq!((trail.steps.len(), trail.forgotten), (STEPS_MAX, 7));
        assert!(trail.steps.iter().all(|step| step.result.len() <= RESULT_BYTES_MAX));
        assert!(trail.counts.len() <= NAMES_MAX + 1);
        let (steps, others) = trail.bearing_on(&[], 10_000);
        assert_eq!((steps.len(), others), (2, STEPS_MAX + 5));
    }

    #[test]
    fn finish_is_no_step() {
        let trail = trail(&[("finish", "a", "b"), ("shell", "a", "b")]);
        assert_eq!(trail.summary(), "1 tool calls (shell 1)");
    }
}
