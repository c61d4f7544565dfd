//! How the agent ended: exit code, termination message, result. Pure.
//!
//! Every way out of the program is an [`Outcome`], a bad configuration and a defect of ours included, so that a controller
//! always gets a code and a message. It knows no I/O. Surprising: the exit code depends on the reason only where the
//! configuration asked for `detailed` codes.

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, ExitCodes};
use crate::conversation::Usage;
use crate::journal::JournalError;
use crate::model::{ModelError, ModelErrorKind};
use crate::secret::Secrets;

/// The kubelet keeps this much of a termination message (Kubernetes documentation, "Determine the Reason for Pod Failure",
/// read 2026-11).
pub const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;
/// What `host/stop.rs` holds ready for a signal is shorter: room for the duration, which only the handler knows.
const STOP_MESSAGE_BYTES_MAX: usize = 4000;

/// How the agent ended, and the numbers of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub reason: Reason,
    /// The model's summary, or what went wrong and what to do about it.
    pub result: String,
    /// One entry for each configured key result, in their order.
    pub key_results: Vec<KeyResultState>,
    pub spent: Spent,
    /// An earlier process began this run; the numbers are those of all of them together.
    pub resumed: bool,
}

/// Why the run ended, one word that a machine can switch on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Finished,
    GaveUp,
    KeyResultsUnmet,
    NoVerdict,
    Stalled,
    BudgetExhausted,
    Refused,
    ContextExhausted,
    ConfigInvalid,
    CredentialsRefused,
    ModelUnavailable,
    ToolUnavailable,
    Terminated,
    InternalError,
}

impl Reason {
    /// The word, as the termination message has it.
    pub fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default()
    }

    pub fn from_word(word: &str) -> Option<Reason> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
    }

    /// Whether the agent itself has come to an end. Otherwise the world was in the way, and a later process may go on.
    pub fn is_verdict(self) -> bool {
        match self {
            Reason::Finished
            | Reason::GaveUp
            | Reason::KeyResultsUnmet
            | Reason::NoVerdict
            | Reason::Stalled
            | Reason::BudgetExhausted
            | Reason::Refused
            | Reason::ContextExhausted => true,
            Reason::ConfigInvalid
            | Reason::CredentialsRefused
            | Reason::ModelUnavailable
            | Reason::ToolUnavailable
            | Reason::Terminated
            | Reason::InternalError => false,
        }
    }
}

/// How a key result stands at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyResultState {
    /// Its number, from 1.
    pub key_result: usize,
    pub met: bool,
    pub evidence: String,
    /// What the configured check said at the last `finish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckState>,
    /// By whose word it stands so; nothing while nobody has said anything of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub established: Option<Established>,
}

impl KeyResultState {
    /// Nobody has said anything of it.
    pub fn unmet(key_result: usize) -> KeyResultState {
        KeyResultState { key_result, met: false, evidence: String::new(), check: None, established: None }
    }
}

/// Whose word counts for a key result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Established {
    /// Its check ran.
    Check,
    /// The verifier agreed, or did not.
    Verifier,
    /// Only the model itself says so.
    Claimed,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    Passed,
    Failed,
}

/// What the run has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Questions to the model; retries of one question count once.
    pub llm_calls: u64,
    /// Answers of the model.
    pub turns: u64,
    /// Calls of tools other than `finish`.
    pub tool_calls: u64,
    /// Of all calls, the verifier's included.
    pub usage: Usage,
    /// Of the calls and the usage above, the verifier's part.
    pub verifier_calls: u64,
    pub verifier_usage: Usage,
    pub seconds: f64,
}

/// Why a run cannot go on, for a person to repair. It never reaches the model.
#[derive(Debug)]
pub enum Fatal {
    Config(Vec<ConfigError>),
    /// A required tool that cannot work here: its place in the configuration and why, one a line.
    Tools(Vec<String>),
    Model(ModelError),
    Journal(JournalError),
}

impl From<JournalError> for Fatal {
    fn from(error: JournalError) -> Fatal {
        Fatal::Journal(error)
    }
}

impl From<ModelError> for Fatal {
    fn from(error: ModelError) -> Fatal {
        Fatal::Model(error)
    }
}

impl Fatal {
    /// `what` is `VARIABLE: what is wrong`.
    pub fn of_roots(what: String) -> Fatal {
        let (variable, what) = what.split_once(": ").unwrap_or(("SSL_CERT_FILE", &what));
        Fatal::Config(vec![ConfigError { variable: variable.to_owned(), path: String::new(), what: what.to_owned() }])
    }
}

impl From<Vec<String>> for Fatal {
    fn from(lines: Vec<String>) -> Fatal {
        Fatal::Tools(lines)
    }
}

impl From<Vec<ConfigError>> for Fatal {
    fn from(errors: Vec<ConfigError>) -> Fatal {
        Fatal::Config(errors)
    }
}

impl Outcome {
    /// The outcome of a run that could not go on.
    pub fn of_fatal(fatal: &Fatal) -> Outcome {
        let (reason, result) = match fatal {
            Fatal::Config(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                (Reason::ConfigInvalid, lines.join("\n"))
            }
            Fatal::Tools(lines) => (Reason::ToolUnavailable, lines.join("\n")),
            Fatal::Model(error) => (reason_of(error.kind), error.to_string()),
            Fatal::Journal(error) if error.is_late => (Reason::InternalError, error.to_string()),
            Fatal::Journal(error) => (Reason::ConfigInvalid, error.to_string()),
        };
        Outcome::new(reason, result)
    }

    /// The outcome of a run that a signal ends now; `doing` is what it ends.
    pub fn of_stop(doing: &str) -> Outcome {
        Outcome::new(Reason::Terminated, format!("stopped by a signal while {doing}"))
    }

    /// The outcome of a run that a defect of ours has ended.
    pub fn of_defect(what: &str) -> Outcome {
        Outcome::new(Reason::InternalError, what.to_owned())
    }

    /// An outcome before its numbers are known.
    pub fn new(reason: Reason, result: String) -> Outcome {
        Outcome { reason, result, key_results: Vec::new(), spent: Spent::default(), resumed: false }
    }

    /// The exit code. README.md has the same table, and a test compares the two.
    pub fn exit_code(&self, codes: ExitCodes) -> u8 {
        match (codes, self.reason) {
            (_, Reason::Finished) => 0,
            (_, Reason::Terminated) => 143,
            (ExitCodes::Simple, _) => 1,
            (ExitCodes::Detailed, reason) => match reason {
                Reason::ConfigInvalid => 78,
                Reason::CredentialsRefused => 77,
                Reason::BudgetExhausted => 75,
                Reason::InternalError => 70,
                Reason::ModelUnavailable | Reason::ToolUnavailable => 69,
                Reason::Finished
                | Reason::Terminated
                | Reason::GaveUp
                | Reason::KeyResultsUnmet
                | Reason::NoVerdict
                | Reason::Stalled
                | Reason::Refused
                | Reason::ContextExhausted => 1,
            },
        }
    }

    /// The exit code of a stop by SIGINT, which a person at a terminal sends; [`Outcome::exit_code`] has that of SIGTERM.
    pub fn exit_code_of_interrupt(codes: ExitCodes) -> u8 {
        match codes {
            ExitCodes::Simple | ExitCodes::Detailed => 130,
        }
    }

    /// The outcome without secrets.
    pub fn masked(mut self, secrets: &Secrets) -> Outcome {
        self.result = secrets.mask(&self.result).into_owned();
        for state in &mut self.key_results {
            state.evidence = secrets.mask(&state.evidence).into_owned();
        }
        self
    }

    /// The whole outcome as one line of JSON.
    pub fn to_json(&self) -> String {
        Message::of(self, usize::MAX, self.key_results.len()).to_json()
    }

    /// The outcome as one line of JSON of at most [`TERMINATION_MESSAGE_BYTES_MAX`] bytes. Texts are cut first, each with
    /// a note of how much is missing; then key results from the end, with their number in `keyResultsLeftOut`.
    pub fn to_termination_message(&self) -> String {
        self.within(TERMINATION_MESSAGE_BYTES_MAX)
    }

    /// The termination message in two parts, between which the seconds of the run are to be written.
    pub fn to_stop_message(&self) -> (String, String) {
        // In a text of ours or the model's the quote would have a backslash before it.
        const FIELD: &str = "\"durationSeconds\":";
        let message = self.within(STOP_MESSAGE_BYTES_MAX);
        let (before, rest) = message.split_once(FIELD).unwrap_or((&message, ""));
        let number = rest.find([',', '}']).unwrap_or(0);
        (format!("{before}{FIELD}"), rest.get(number..).unwrap_or_default().to_owned())
    }

    fn within(&self, bytes_max: usize) -> String {
        let fits = |text_bytes_max: usize, key_results: usize| {
            let json = Message::of(self, text_bytes_max, key_results).to_json();
            (json.len() <= bytes_max).then_some(json)
        };
        let all = self.key_results.len();
        let whole = fits(usize::MAX, all);
        let texts = [2048, 1024, 512, 256, 128, 64, 32, 0];
        whole
            .or_else(|| texts.iter().find_map(|text_bytes_max| fits(*text_bytes_max, all)))
            .or_else(|| (0..all).rev().find_map(|key_results| fits(512, key_results)))
            .unwrap_or_else(|| Message::of(self, 0, 0).to_json())
    }
}

fn reason_of(kind: ModelErrorKind) -> Reason {
    match kind {
        ModelErrorKind::Config => Reason::ConfigInvalid,
        ModelErrorKind::Credentials => Reason::CredentialsRefused,
        ModelErrorKind::Unavailable => Reason::ModelUnavailable,
        ModelErrorKind::ContextTooLong => Reason::ContextExhausted,
    }
}

/// The JSON object, with the names that the contract gives.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    status: &'static str,
    reason: Reason,
    result: String,
    key_results: Vec<KeyResultState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_results_left_out: Option<usize>,
    llm_calls_used: u64,
    turns: u64,
    tool_calls: u64,
    usage: MessageUsage,
    #[serde(skip_serializing_if = "Option::is_none")]
    verifier: Option<MessageVerifier>,
    duration_seconds: f64,
    resumed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageUsage {
    input_tokens: u64,
    output_tokens: u64,
    cached_input_tokens: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
}

impl From<Usage> for MessageUsage {
    fn from(usage: Usage) -> MessageUsage {
        MessageUsage {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            estimated: usage.is_estimate,
        }
    }
}

#[derive(Serialize)]
struct MessageVerifier {
    calls: u64,
    usage: MessageUsage,
}

impl Message {
    fn of(outcome: &Outcome, text_bytes_max: usize, key_results_max: usize) -> Message {
        let key_results = outcome.key_results.iter().take(key_results_max);
        let Spent { usage, verifier_calls, verifier_usage, .. } = outcome.spent;
        Message {
            status: match outcome.reason {
                Reason::Finished => "achieved",
                Reason::Terminated => "interrupted",
                _ => "failed",
            },
            reason: outcome.reason,
            result: cut(&outcome.result, text_bytes_max),
            key_results: key_results
                .map(|state| KeyResultState { evidence: cut(&state.evidence, text_bytes_max), ..state.clone() })
                .collect(),
            key_results_left_out: outcome.key_results.len().checked_sub(key_results_max).filter(|count| *count > 0),
            llm_calls_used: outcome.spent.llm_calls,
            turns: outcome.spent.turns,
            tool_calls: outcome.spent.tool_calls,
            usage: usage.into(),
            verifier: (verifier_calls > 0)
                .then(|| MessageVerifier { calls: verifier_calls, usage: verifier_usage.into() }),
            duration_seconds: (outcome.spent.seconds * 10.0).round() / 10.0,
            resumed: outcome.resumed,
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings and numbers serializes")
    }
}

/// The beginning of the text, at most `bytes_max` bytes as JSON has it, and a note of how many bytes are missing.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (head, rest) = text.split_at(end);
    format!("{head}… [{} bytes cut]", rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(result: &str, evidence: &str, key_results: usize) -> Outcome {
        Outcome {
            reason: Reason::Finished,
            result: result.to_owned(),
            key_results: (1..=key_results)
                .map(|key_result| KeyResultState {
                    met: true,
                    evidence: evidence.to_owned(),
                    ..KeyResultState::unmet(key_result)
                })
                .collect(),
            spent: Spent::default(),
            resumed: false,
        }
    }

    #[test]
    fn the_termination_message_always_fits_and_is_json() {
        for text in ["", "short", &"ä\u{1F600}\u{1}\"\\\n".repeat(3000)] {
            for key_results in [0, 1, 7, 60, 500] {
                let message = outcome(text, text, key_results).to_termination_message();
                assert!(message.len() <= TERMINATION_MESSAGE_BYTES_MAX, "{} bytes", message.len());
                let value: serde_json::Value = serde_json::from_str(&message).unwrap();
                let kept = value["keyResults"].as_array().unwrap().len();
                let left_out = value["keyResultsLeftOut"].as_u64().unwrap_or(0);
                assert_eq!(kept + usize::try_from(left_out).unwrap(), key_results);
            }
        }
    }

    #[test]
    fn a_stop_message_is_json_around_its_number() {
        for text in ["", "\\\"durationSeconds\\\":7", &"\"durationSeconds\":7,".repeat(1000)] {
            let outcome = Outcome { reason: Reason::Terminated, ..outcome(text, text, 3) };
            let (before, after) = outcome.to_stop_message();
            let value: serde_json::Value = serde_json::from_str(&format!("{before}12.5{after}")).unwrap();
            assert_eq!((&value["status"], &value["durationSeconds"]), (&"interrupted".into(), &12.5.into()));
            assert!(before.len() + after.len() <= STOP_MESSAGE_BYTES_MAX);
        }
    }

    #[test]
    fn a_short_outcome_is_not_cut() {
        let outcome = outcome("done", "seen", 3);
        assert_eq!(outcome.to_termination_message(), outcome.to_json());
    }
}
