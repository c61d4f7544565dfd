//! Are the key results met? Checks by command; a model's word is not asked here.
//!
//! A check belongs to whoever wrote the Agent: its exit code counts, whatever the model claims. It runs in the workspace
//! with an environment built from nothing, like every child.

use std::ffi::{OsStr, OsString};

use log::info;

use crate::config::{Check, Config, ConfigError};
use crate::host::Deadline;
use crate::host::process::{self, Output, Process};

/// Bytes of a check's output that the model is shown.
const OUTPUT_BYTES_MAX: usize = 4096;

/// How one check went.
pub struct Checked {
    /// The number of the key result, from 1.
    pub key_result: usize,
    /// Why it is not met, with the check's output, for the model; `None`: the check passed.
    pub fault: Option<String>,
}

/// Whether every check's program is there, so that a check which can never run is found before the first model call.
pub fn probe(config: &Config) -> Result<(), Vec<ConfigError>> {
    let mut errors = Vec::new();
    for (index, key_result) in config.key_results.iter().enumerate() {
        let Some(check) = &key_result.check else { continue };
        if !is_there(config, check) {
            errors.push(ConfigError {
                variable: "THOUGHTMESH_KEY_RESULTS".to_owned(),
                path: format!("[{index}].check.command[0]"),
                what: "not an executable program here, accepted: a name on PATH, or a path".to_owned(),
            });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn is_there(config: &Config, check: &Check) -> bool {
    let search_path = environment(config, check).into_iter().rev().find(|(name, _)| name == "PATH");
    let search_path = search_path.map(|(_, value)| value).unwrap_or_default();
    let program = match check.program.contains('/') {
        true => config.workspace.join(&check.program).into_os_string(),
        false => OsString::from(&check.program),
    };
    process::find_program(&program, OsStr::new(&search_path)).is_some()
}

fn environment(config: &Config, check: &Check) -> Vec<(OsString, OsString)> {
    [&config.child_environment[..], &check.environment].concat()
}

/// Runs all checks, one after the other.
pub fn run_checks(config: &Config) -> Vec<Checked> {
    let with_checks = config.key_results.iter().enumerate();
    with_checks
        .filter_map(|(index, key_result)| Some((index + 1, key_result.check.as_ref()?)))
        .map(|(key_result, check)| Checked { key_result, fault: run_check(config, key_result, check) })
        .collect()
}

fn run_check(config: &Config, key_result: usize, check: &Check) -> Option<String> {
    let ended = process::run(&Process {
        program: OsString::from(&check.program),
        arguments: check.arguments.iter().map(OsString::from).collect(),
        directory: config.workspace.clone(),
        environment: environment(config, check),
        stdin: Vec::new(),
        output_bytes_max: OUTPUT_BYTES_MAX + 2 * config.secrets.margin_bytes(),
        deadline: Deadline::after(check.timeout),
    });
    let fault = match ended {
        Ok(ended) if ended.status.is_success() && !ended.timed_out => None,
        Ok(ended) if ended.timed_out => {
            let seconds = check.timeout.as_secs();
            Some(format!("was not done within {seconds} s; its output: {}", told(ended.output, config)))
        }
        Ok(ended) => Some(format!("{}; its output: {}", ended.status, told(ended.output, config))),
        Err(error) => Some(error.to_string()),
    };
    let word = if fault.is_none() { "passed" } else { "failed" };
    info!("check of key result {key_result}: {word}");
    fault.map(|what| format!("the check of key result {key_result} does not pass: {what}"))
}

/// A check's output. Where it was cut, secrets are masked already: the half of one would not be recognized.
fn told(output: Output, config: &Config) -> String {
    match (output.cut_bytes, output.text()) {
        (0, text) if text.trim().is_empty() => return "none".to_owned(),
        (0, text) => return text,
        _ => {}
    }
    let (head, tail) = config.secrets.mask_sides(&output.head, &output.tail);
    Output { head, tail, cut_bytes: output.cut_bytes }.text()
}
