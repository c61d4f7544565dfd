//! Environment → [`Config`]: everything the outside decided, validated, complete, immutable. The only reader of the environment.
//!
//! All mistakes are found in one go, each names its variable and the place in its JSON, and none quotes a value. What is
//! only odd becomes a warning, as data: the log is not started yet. Surprising: how to report ([`Reporting`]) is read on its
//! own, because a bad configuration must be reported too.

mod context;
pub mod model;
mod network;
pub mod options;
pub mod provider;
pub mod read;
pub mod tools;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use self::context::ContextVariable;
pub use self::model::ModelConfig;
use self::model::Models;
pub use self::network::Network;
pub use self::provider::{Api, KeyForm, Provider};
pub use self::read::ConfigError;
use self::read::{At, Reader, kind, nearest};
pub use self::tools::{ToolEntry, ToolKind};
use crate::conversation::{Fingerprint, checksum};
use crate::secret::{SECRET_BYTES_MIN, Secrets};

/// The runtime's own variables and what each is for: the text of `--help`.
pub const VARIABLES: [(&str, &str); 10] = [
    ("THOUGHTMESH_MODEL_CONFIG", "JSON object, required: the model, or roles with `worker` and `verifier`"),
    ("THOUGHTMESH_OBJECTIVE", "text, required: what to achieve"),
    ("THOUGHTMESH_KEY_RESULTS", "JSON array: texts, or {\"description\", \"check\": {\"command\": [...]}}"),
    ("THOUGHTMESH_TOOLS", "JSON array: {\"name\", \"config\"}; without it the agent has no tools"),
    (
        "THOUGHTMESH_LIMITS",
        "JSON object: max_turns, max_total_tokens, max_llm_calls, max_output_tokens_per_call, \
max_finish_rejections, max_stalled_turns",
    ),
    ("THOUGHTMESH_WORKSPACE", "path of the directory that the tools work in, default the current one"),
    ("THOUGHTMESH_JOURNAL", "path of the record of the run; an unfinished run in it goes on"),
    ("THOUGHTMESH_TERMINATION_LOG", "path of the termination message, default /dev/termination-log if it exists"),
    ("THOUGHTMESH_LOG_FORMAT", "text or json, default text; RUST_LOG sets the level, default info"),
    ("THOUGHTMESH_EXIT_CODES", "simple or detailed, default simple"),
];

/// Where Kubernetes mounts the file of the termination message (API reference, Container, read 2026-11).
const TERMINATION_LOG_DEFAULT: &str = "/dev/termination-log";
/// Limit on one check of a key result, unless it says otherwise.
const CHECK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);

/// Everything the outside decided.
#[derive(Clone, Debug)]
pub struct Config {
    pub objective: String,
    pub key_results: Vec<KeyResult>,
    pub model: ModelConfig,
    /// Who gives a second opinion on every key result.
    pub verifier: Option<ModelConfig>,
    pub tools: Vec<ToolEntry>,
    pub limits: Limits,
    /// Root of the file tools and working directory of commands; absolute.
    pub workspace: PathBuf,
    /// The file of the journal.
    pub journal: Option<PathBuf>,
    /// What a journal must have in common with this.
    pub fingerprint: Fingerprint,
    pub context: Vec<ContextVariable>,
    /// Everything that must not leave.
    pub secrets: Secrets,
    pub network: Network,
    /// What every process that we start gets: `PATH`, `HOME`, `LANG`, `TMPDIR`, as far as they are set.
    pub child_environment: Vec<(OsString, OsString)>,
}

/// Something measurable that the objective stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyResult {
    pub description: String,
    pub check: Option<Check>,
}

/// A command that exits 0 when the key result is met.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub program: String,
    pub arguments: Vec<String>,
    pub timeout: Duration,
    pub environment: Vec<(OsString, OsString)>,
}

/// Budgets of the run. Reached exactly is spent.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Answers of the model.
    pub turns_max: u64,
    /// Input and output tokens of all turns.
    pub total_tokens_max: Option<u64>,
    /// Questions to the model; retries of one question count once.
    pub llm_calls_max: Option<u64>,
    /// Output tokens of one answer, of every model.
    pub output_tokens_per_call_max: Option<u64>,
    /// Calls of `finish` that claimed achievement wrongly.
    pub finish_rejections_max: u64,
    /// Turns in a row that brought nothing new.
    pub stalled_turns_max: u64,
}

impl fmt::Display for Limits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        write!(
            formatter,
            "max_turns {}, max_total_tokens {}, max_llm_calls {}, max_output_tokens_per_call {}, max_finish_rejections {}, \
max_stalled_turns {}",
            self.turns_max,
            none(self.total_tokens_max),
            none(self.llm_calls_max),
            none(self.output_tokens_per_call_max),
            self.finish_rejections_max,
            self.stalled_turns_max
        )
    }
}

/// How the run is reported, also when the configuration is bad.
#[derive(Clone, Debug, PartialEq)]
pub struct Reporting {
    pub log_format: LogFormat,
    pub exit_codes: ExitCodes,
    pub termination_log: PathBuf,
    /// The path was chosen by a person, so the file is made when it does not exist.
    pub is_termination_log_chosen: bool,
    /// What `RUST_LOG` says.
    pub log_filter: Option<String>,
}

impl Default for Reporting {
    fn default() -> Reporting {
        Reporting {
            log_format: LogFormat::Text,
            exit_codes: ExitCodes::Simple,
            termination_log: TERMINATION_LOG_DEFAULT.into(),
            is_termination_log_chosen: false,
            log_filter: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExitCodes {
    Simple,
    Detailed,
}

/// What was read: how to report, the configuration or what is wrong with it, and what is only odd.
pub struct Reading {
    pub reporting: Reporting,
    pub config: Result<Config, Vec<ConfigError>>,
    pub warnings: Vec<String>,
}

/// The process's environment. A name that is not UTF-8 cannot be one of ours and is left out.
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    pub fn of_process() -> Environment {
        let mut variables = BTreeMap::new();
        variables.extend(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))));
        Environment(variables)
    }

    #[cfg(test)]
    fn of_pairs(pairs: &[(&str, &str)]) -> Environment {
        Environment(pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect())
    }

    /// The value; empty is the same as unset.
    fn raw(&self, name: &str) -> Option<&OsString> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    /// The value, trimmed; blank is the same as unset. For variables in which bad UTF-8 may go to a stranger as it is.
    fn lossy(&self, name: &str) -> Option<String> {
        let text = self.raw(name)?.to_string_lossy().trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The value, trimmed; blank is the same as unset; bad UTF-8 is a mistake.
    fn text(&self, reader: &mut Reader, name: &'static str) -> Option<String> {
        match self.raw(name)?.to_str() {
            Some(text) if text.trim().is_empty() => None,
            Some(text) => Some(text.trim().to_owned()),
            None => {
                reader.error(&At::root(name), "not valid UTF-8, accepted: text in UTF-8");
                None
            }
        }
    }
}

/// Reads everything.
pub fn read(environment: &Environment) -> Reading {
    let mut reader = Reader::default();
    let reporting = read_reporting(&mut reader, environment);
    let objective = environment.text(&mut reader, "THOUGHTMESH_OBJECTIVE");
    if objective.is_none() && !reader.errors.iter().any(|error| error.variable == "THOUGHTMESH_OBJECTIVE") {
        reader.error(&At::root("THOUGHTMESH_OBJECTIVE"), "required and not set, accepted: text that is not empty");
    }
    let key_results = read_key_results(&mut reader, environment);
    let models = model::read(&mut reader, environment);
    let tools = tools::read(&mut reader, environment);
    let limits = read_limits(&mut reader, environment);
    let workspace = read_workspace(&mut reader, environment);
    let network = network::read(&mut reader, environment);
    let journal = read_journal(&mut reader, environment, &workspace);
    let ours = VARIABLES.map(|(name, _)| name);
    let (context, context_warnings) = context::read(&environment.0);
    reader.warnings.extend(context_warnings);
    warn_of_misspelled(&mut reader, environment, &ours);
    let secrets = collect_secrets(&mut reader, environment, models.as_ref(), &tools, &context);
    let child_environment = ["PATH", "HOME", "LANG", "TMPDIR"]
        .iter()
        .filter_map(|name| Some((OsString::from(name), environment.raw(name)?.clone())))
        .collect();
    let config = match (objective, models) {
        (Some(objective), Some(models)) if reader.errors.is_empty() => {
            let fingerprint = fingerprint(environment, &objective, &models, &secrets);
            let Models { worker, verifier } = limited(&mut reader, models, &limits, key_results.is_empty());
            Ok(Config {
                objective,
                key_results,
                model: worker,
                verifier,
                tools,
                limits,
                workspace,
                journal,
                fingerprint,
                context,
                secrets,
                network,
                child_environment,
            })
        }
        _ => Err(reader.errors),
    };
    Reading { reporting, config, warnings: reader.warnings }
}

/// The models, held to the limit on one answer.
fn limited(reader: &mut Reader, mut models: Models, limits: &Limits, has_no_key_results: bool) -> Models {
    if let Some(tokens_max) = limits.output_tokens_per_call_max {
        let all = [Some(&mut models.worker), models.verifier.as_mut()];
        all.into_iter().flatten().for_each(|model| model.limit_output(tokens_max));
    }
    if models.verifier.is_some() && has_no_key_results {
        let at = At::root("THOUGHTMESH_MODEL_CONFIG").key("verifier");
        reader.warn(&at, "has no key results to judge, so it is never asked");
    }
    models
}

/// How the run is reported. Also read on its own, before all else: a signal may come while the rest is read.
pub fn read_reporting(reader: &mut Reader, environment: &Environment) -> Reporting {
    let mut choice = |name: &'static str, accepted: [&str; 2]| {
        let word = environment.text(reader, name);
        let found = word.as_deref().map(|word| accepted.iter().position(|known| *known == word));
        if found == Some(None) {
            reader.error(&At::root(name), format!("not accepted, accepted: {}", accepted.join(", ")));
        }
        found.flatten() == Some(1)
    };
    let log_format = if choice("THOUGHTMESH_LOG_FORMAT", ["text", "json"]) { LogFormat::Json } else { LogFormat::Text };
    let exit_codes =
        if choice("THOUGHTMESH_EXIT_CODES", ["simple", "detailed"]) { ExitCodes::Detailed } else { ExitCodes::Simple };
    let chosen = environment.raw("THOUGHTMESH_TERMINATION_LOG");
    Reporting {
        log_format,
        exit_codes,
        termination_log: chosen.map_or_else(|| TERMINATION_LOG_DEFAULT.into(), PathBuf::from),
        is_termination_log_chosen: chosen.is_some(),
        log_filter: environment.lossy("RUST_LOG"),
    }
}

fn read_key_results(reader: &mut Reader, environment: &Environment) -> Vec<KeyResult> {
    const ACCEPTED: &str = "a JSON array of strings, or of objects with `description` and `check`";
    let at = At::root("THOUGHTMESH_KEY_RESULTS");
    let Some(text) = environment.text(reader, at.variable) else { return Vec::new() };
    let Some(value) = reader.json(&at, &text, ACCEPTED) else { return Vec::new() };
    let Some(array) = reader.array(&at, &value, ACCEPTED) else { return Vec::new() };
    let mut key_results = Vec::new();
    for (index, value) in array.iter().enumerate() {
        let at = at.index(index);
        match value {
            Value::String(text) if !text.trim().is_empty() => {
                key_results.push(KeyResult { description: text.trim().to_owned(), check: None });
            }
            Value::String(_) => reader.error(&at, "empty, accepted: a string that says what is to be met"),
            Value::Object(object) => {
                // Unknown fields are mistakes here: a misspelled check would be a key result that nobody checks.
                reader.refuse_unknown(&at, object, &["description", "check"]);
                let Some(description) = reader.text(&at, object, "description") else {
                    if object.get("description").is_none_or(|d| d.is_null() || d.is_string()) {
                        reader.error(&at.key("description"), "required and missing, accepted: a string");
                    }
                    continue;
                };
                let check = read_check(reader, environment, &at, object);
                key_results.push(KeyResult { description, check });
            }
            other => {
                reader.error(&at, format!("{} found, accepted: a string, or an object with `description`", kind(other)))
            }
        }
    }
    key_results
}

fn read_check(reader: &mut Reader, environment: &Environment, at: &At, object: &Map<String, Value>) -> Option<Check> {
    let at = at.key("check");
    let value = object.get("check").filter(|value| !value.is_null())?;
    let check = reader.object(&at, value, "an object with `command`")?;
    reader.refuse_unknown(&at, check, &["command", "env", "timeout_seconds"]);
    let command = reader.texts(&at, check, "command");
    let timeout = reader.whole_number(&at, check, "timeout_seconds", 1);
    let pairs = tools::handed_on(reader, environment, &at, check);
    match command.as_deref() {
        Some([program, arguments @ ..]) => Some(Check {
            program: program.clone(),
            arguments: arguments.to_vec(),
            timeout: timeout.map_or(CHECK_TIMEOUT_DEFAULT, Duration::from_secs),
            environment: pairs,
        }),
        _ => {
            let at = at.key("command");
            if !reader.errors.iter().any(|error| error.path.starts_with(&at.path)) {
                reader.error(&at, "required and missing, accepted: a JSON array of a program and its arguments");
            }
            None
        }
    }
}

fn read_limits(reader: &mut Reader, environment: &Environment) -> Limits {
    const FIELDS: [&str; 6] = [
        "max_turns",
        "max_total_tokens",
        "max_llm_calls",
        "max_output_tokens_per_call",
        "max_finish_rejections",
        "max_stalled_turns",
    ];
    let at = At::root("THOUGHTMESH_LIMITS");
    let accepted = "a JSON object of whole numbers";
    let value = environment.text(reader, at.variable).and_then(|text| reader.json(&at, &text, accepted));
    let none = Map::new();
    let object = value.as_ref().and_then(|value| reader.object(&at, value, accepted)).unwrap_or(&none);
    reader.refuse_unknown(&at, object, &FIELDS);
    let mut limit = |key| reader.whole_number(&at, object, key, 1);
    Limits {
        turns_max: limit("max_turns").unwrap_or(200),
        total_tokens_max: limit("max_total_tokens"),
        llm_calls_max: limit("max_llm_calls"),
        output_tokens_per_call_max: limit("max_output_tokens_per_call"),
        finish_rejections_max: limit("max_finish_rejections").unwrap_or(3),
        stalled_turns_max: limit("max_stalled_turns").unwrap_or(10),
    }
}

fn read_workspace(reader: &mut Reader, environment: &Environment) -> PathBuf {
    let at = At::root("THOUGHTMESH_WORKSPACE");
    let chosen = environment.raw(at.variable).map_or_else(|| PathBuf::from("."), PathBuf::from);
    match std::fs::canonicalize(&chosen) {
        Ok(path) if path.is_dir() => return path,
        Ok(_) => reader.error(&at, "not a directory, accepted: the path of a directory"),
        Err(error) => reader.error(&at, format!("cannot be opened ({error}), accepted: the path of a directory")),
    }
    chosen
}

fn read_journal(reader: &mut Reader, environment: &Environment, workspace: &Path) -> Option<PathBuf> {
    let path = environment.raw("THOUGHTMESH_JOURNAL").map(PathBuf::from)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if std::fs::canonicalize(parent).is_ok_and(|parent| parent.starts_with(workspace)) {
        reader.warnings.push("THOUGHTMESH_JOURNAL: lies in the workspace, where tools can change it".to_owned());
    }
    Some(path)
}

/// Of the JSON variables the text counts, without a difference in white space or the order of fields, so that a new version
/// of the runtime, which may read more of them, goes on with a run of an old one. Secrets are masked first, so that a new
/// key goes on with the run too. The limit on one answer counts among the limits, not in each model.
fn fingerprint(environment: &Environment, objective: &str, models: &Models, secrets: &Secrets) -> Fingerprint {
    let sum = |text: &str| format!("{:016x}", checksum(0, secrets.mask(text).as_bytes()));
    let sum_of_json = |mut value: Value| {
        value.sort_all_objects();
        sum(&value.to_string())
    };
    let sum_of_variable = |name: &str| {
        let text = environment.lossy(name).unwrap_or_default();
        serde_json::from_str(&text).map_or_else(|_| sum(&text), sum_of_json)
    };
    let description = |model: &ModelConfig| {
        json!({
            "provider": model.provider.name(),
            "name": model.name,
            "endpoint": model.endpoint,
            "temperature": model.temperature,
            "system_prompt": model.system_prompt,
            "params": model.params,
            "max_tokens": model.max_tokens,
            "context_window": model.context_window,
        })
    };
    let worker = description(&models.worker);
    Fingerprint {
        model: sum_of_json(match &models.verifier {
            Some(verifier) => json!([worker, description(verifier)]),
            None => worker,
        }),
        objective: sum(objective),
        key_results: sum_of_variable("THOUGHTMESH_KEY_RESULTS"),
        tools: sum_of_variable("THOUGHTMESH_TOOLS"),
        limits: sum_of_variable("THOUGHTMESH_LIMITS"),
    }
}

fn warn_of_misspelled(reader: &mut Reader, environment: &Environment, ours: &[&str]) {
    for name in environment.0.keys().filter(|name| name.starts_with("THOUGHTMESH_") && !ours.contains(&name.as_str())) {
        let near = nearest(name, ours.iter().copied()).map(|near| format!(", did you mean {near}")).unwrap_or_default();
        reader.warnings.push(format!("{name}: not a variable of the runtime, ignored{near}"));
    }
}

/// Everything that must not leave: the keys and headers of the models, credentials of tools, secrets of the context,
/// passwords in proxy URLs.
fn collect_secrets(
    reader: &mut Reader,
    environment: &Environment,
    models: Option<&Models>,
    tools: &[ToolEntry],
    context: &[ContextVariable],
) -> Secrets {
    let mut named: Vec<(String, String)> = Vec::new();
    let of_tools = tools.iter().flat_map(|entry| &entry.secrets);
    named.extend(of_tools.map(|(name, secret)| (name.clone(), secret.reveal().to_owned())));
    for model in models.into_iter().flat_map(Models::all) {
        named.extend(model.api_key.iter().map(|key| ("api_key".to_owned(), key.reveal().to_owned())));
        let headers = model
            .headers
            .iter()
            .filter(|(name, _)| context::has_secret_name(name) || name.eq_ignore_ascii_case("authorization"));
        for (name, value) in headers {
            // `Bearer <token>`: the token is secret on its own.
            let token = value.reveal().rsplit(' ').next().unwrap_or_default();
            named.push((name.clone(), value.reveal().to_owned()));
            named.push((name.clone(), token.to_owned()));
        }
    }
    for (name, value) in &environment.0 {
        let text = value.to_string_lossy();
        let is_secret = context.iter().any(|variable| variable.name == *name && variable.value.is_none());
        // `PWD` ends like a password, and is none.
        if is_secret || (context::has_secret_name(name) && !context::is_platform(name)) {
            named.push((name.clone(), text.clone().into_owned()));
        }
        let passwords = context::passwords(&text);
        named.extend(passwords.iter().map(|password| (name.clone(), (*password).to_owned())));
    }
    let mut secrets = Secrets::default();
    for (name, value) in named {
        if value.trim().is_empty() {
            continue;
        }
        if value.trim().len() < SECRET_BYTES_MIN {
            reader
                .warnings
                .push(format!("{name}: shorter than {SECRET_BYTES_MIN} bytes, so it is not masked where it appears"));
        }
        secrets.add(&name, &value);
    }
    secrets
}
