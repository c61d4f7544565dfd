//! A process that a tool starts: within the limits of its entry, and told to the model.
//!
//! Starting, limiting and killing is `host/process.rs`; here is what the model reads of it. An exit code other than 0 is a
//! failed call, with the output in it, so that a turn whose tests failed cannot also claim to be finished.
//!
//! What may surprise: secrets are masked here already, before the output is cut to its limit. Afterwards the half of one
//! that is left beside the cut would not be recognized.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::ToolError;
use super::excerpt::excerpt;
use crate::host::Deadline;
use crate::host::process::{self, Ended, Output, Process};
use crate::secret::Secrets;

/// Room in a result for what is said about the process's end.
const NOTES_BYTES_MAX: usize = 500;

/// Where and within which limits a tool's processes run.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The workspace, or a directory in it.
    pub directory: PathBuf,
    /// All of the process's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// How long it may take.
    pub timeout: Duration,
    /// How long a result may be.
    pub output_bytes_max: usize,
    /// What no result may hold.
    pub secrets: Secrets,
}

/// What to run.
#[derive(Debug)]
pub struct Program {
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// What it reads.
    pub stdin: Vec<u8>,
}

/// Runs it to its end. The result is at most `output_bytes_max` long.
pub fn run(program: Program, surroundings: &Surroundings) -> Result<String, ToolError> {
    let room = surroundings.output_bytes_max.saturating_sub(NOTES_BYTES_MAX);
    let ended = capture(program, surroundings, room)?;
    let text = excerpt(&told(&ended, surroundings.timeout), surroundings.output_bytes_max, "");
    if ended.status.is_success() && !ended.timed_out { Ok(text) } else { Err(ToolError::Failed(text)) }
}

/// Runs it to its end and keeps about `output_bytes_max` of its output, in which secrets are masked.
pub fn capture(program: Program, surroundings: &Surroundings, output_bytes_max: usize) -> Result<Ended, ToolError> {
    let process = Process {
        program: program.program,
        arguments: program.arguments,
        directory: surroundings.directory.clone(),
        environment: surroundings.environment.clone(),
        stdin: program.stdin,
        output_bytes_max: output_bytes_max.saturating_add(2 * surroundings.secrets.margin_bytes()),
        deadline: Deadline::after(surroundings.timeout),
    };
    let ended = process::run(&process).map_err(|error| ToolError::Failed(error.to_string()))?;
    Ok(Ended { output: masked(ended.output, &surroundings.secrets), ..ended })
}

fn masked(output: Output, secrets: &Secrets) -> Output {
    if output.cut_bytes == 0 {
        let whole = output.head + &output.tail;
        return Output { head: secrets.mask(&whole).into_owned(), ..Output::default() };
    }
    let (head, tail) = secrets.mask_sides(&output.head, &output.tail);
    let margins = secrets.margin_bytes().min(output.head.len()) + secrets.margin_bytes().min(output.tail.len());
    Output { head, tail, cut_bytes: output.cut_bytes + margins as u64 }
}

/// What a process printed and how it ended.
fn told(ended: &Ended, timeout: Duration) -> String {
    let mut text = ended.output.text();
    let mut notes = Vec::new();
    if text.is_empty() {
        notes.push("[no output]".to_owned());
    } else if !text.ends_with('\n') {
        text.push('\n');
    }
    if ended.output.cut_bytes > 0 {
        notes.push(
            "[to see what was cut, ask for less at once, or send the output to a file and read it in parts]".to_owned(),
        );
    }
    if ended.output_was_kept_open {
        notes.push("[a process left in the background kept the output open; it was not waited for]".to_owned());
    }
    if ended.timed_out {
        notes.push(format!("[ended because it took longer than {} s; {}]", timeout.as_secs_f64(), ended.status));
    } else if !ended.status.is_success() {
        notes.push(format!("[{}]", ended.status));
    }
    text + &notes.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_the_cut_goes_through_leaves_nothing() {
        const SECRET: &str = "0123456789abcdefghijklmnop";
        let mut secrets = Secrets::default();
        secrets.add("KEY", SECRET);
        // Wherever the cut falls, it falls into one of them.
        for shift in 0..SECRET.len() {
            let surroundings = Surroundings {
                directory: "/".into(),
                environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
                timeout: Duration::from_secs(60),
                output_bytes_max: 2_000,
                secrets: secrets.clone(),
            };
            let script = format!("printf '%{shift}s' ''; yes {SECRET} | head -n 2000 | tr -d '\\n'");
            let arguments = ["-c".into(), script.into()].to_vec();
            let text = run(Program { program: "sh".into(), arguments, stdin: Vec::new() }, &surroundings).unwrap();
            let output = text.replace("[secret KEY]", "");
            let (head, rest) = output.split_once("\n[").unwrap();
            let tail = rest.split_once("cut here]\n").unwrap().1.split_once("\n[to see").unwrap().0;
            for side in [head.trim(), tail] {
                // What is left of a mask that was cut itself.
                let left = side.trim_start_matches("secret KEY]").trim_end_matches("[secret KEY");
                assert!(!left.contains(|c: char| c.is_ascii_digit()), "{shift}: {side}");
            }
        }
    }
}
