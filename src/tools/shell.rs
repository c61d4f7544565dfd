//! The tool `shell`: run a command line that the model wrote, with `sh -c`, in the workspace.
//!
//! It knows how a shell is called; the process and what is told of it are `child.rs`. The wall around a command is not here:
//! it is its environment built from nothing, and the container. Surprising: what a command starts in the background ends
//! with the command.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::ToolError;
use super::child::{self, Program, Surroundings};
use super::schema;
use crate::conversation::ToolSpec;
use crate::host::process;

pub const NAME: &str = "shell";

/// A shell that is there.
#[derive(Debug, PartialEq)]
pub struct Shell {
    program: PathBuf,
}

impl Shell {
    /// Finds `sh` in `path_variable`, the value of a `PATH`. Fails with what is missing, worded for the person.
    pub fn probe(path_variable: &OsStr) -> Result<Shell, String> {
        match process::find_program(OsStr::new("sh"), path_variable) {
            Some(program) => Ok(Shell { program }),
            None => Err("there is no `sh` in PATH, use an image that has a shell or leave this tool out".to_owned()),
        }
    }

    /// The tool as the model sees it.
    pub fn spec(timeout: Duration) -> ToolSpec {
        let seconds = timeout.as_secs().max(1);
        ToolSpec {
            name: NAME.to_owned(),
            description: "Run a command line with sh -c in the workspace. Gives what it printed, stdout and stderr together; \
                          of long output the beginning and the end. Each call is a new shell: directory and variables are \
                          not kept, and background processes are ended when the call ends. There is nothing to read from \
                          stdin."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "command": {"type": "string", "minLength": 1, "description": "The command line."},
                    "timeout_seconds": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": seconds,
                        "description": format!("End it after this many seconds. Default and maximum {seconds}."),
                    },
                },
                "required": ["command"],
                "additionalProperties": false,
            }),
        }
    }

    /// Runs a command to its end. The result is at most `output_bytes_max` long.
    pub fn run(&self, arguments: &Map<String, Value>, surroundings: &Surroundings) -> Result<String, ToolError> {
        let command = schema::text(arguments, "command")?;
        if command.trim().is_empty() {
            return Err(ToolError::Arguments("command: is empty, give a command line".to_owned()));
        }
        let wanted = schema::positive(arguments, "timeout_seconds")?.map(Duration::from_secs);
        let timeout = wanted.unwrap_or(surroundings.timeout).min(surroundings.timeout);
        let program = Program {
            program: self.program.clone().into_os_string(),
            // Without `--`, a command that begins with a dash would be options of the shell.
            arguments: ["-c", "--", command].map(OsString::from).to_vec(),
            stdin: Vec::new(),
        };
        child::run(program, &Surroundings { timeout, ..surroundings.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secrets;
    use crate::testing::TestDirectory;

    const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

    fn surroundings(place: &TestDirectory) -> Surroundings {
        Surroundings {
            directory: place.path().to_owned(),
            environment: vec![("PATH".into(), PATH.into())],
            timeout: Duration::from_secs(60),
            output_bytes_max: 2_000,
            secrets: Secrets::default(),
        }
    }

    fn run_in(surroundings: &Surroundings, arguments: Value) -> Result<String, ToolError> {
        Shell::probe(OsStr::new(PATH)).unwrap().run(arguments.as_object().unwrap(), surroundings)
    }

    fn run(command: &str) -> Result<String, ToolError> {
        run_in(&surroundings(&TestDirectory::new()), json!({"command": command}))
    }

    #[test]
    fn a_command_gives_what_it_printed() {
        assert_eq!(run("echo out; echo err >&2; printf end"), Ok("out\nerr\nend\n".to_owned()));
        assert_eq!(run("true"), Ok("[no output]".to_owned()));
    }

    #[test]
    fn it_runs_in_the_workspace() {
        let place = TestDirectory::new();
        assert_eq!(run_in(&surroundings(&place), json!({"command": "pwd -P > where"})).unwrap(), "[no output]");
        let written = std::fs::read_to_string(place.join("where")).unwrap();
        assert_eq!(written.trim(), place.path().to_str().unwrap());
    }

    #[test]
    fn an_exit_code_other_than_0_is_a_failure_with_the_output() {
        let expected = "some output\n[exit code 3]".to_owned();
        assert_eq!(run("echo some output; exit 3"), Err(ToolError::Failed(expected)));
        assert_eq!(run("kill -9 $$"), Err(ToolError::Failed("[no output]\n[ended by signal 9]".to_owned())));
        let Err(ToolError::Failed(text)) = run("no-such-command-here") else { panic!("did not fail") };
        assert!(text.ends_with("[exit code 127]"), "{text}");
    }

    #[test]
    fn a_command_may_begin_with_a_dash() {
        let Err(ToolError::Failed(text)) = run("-e echo") else { panic!("did not fail") };
        assert!(text.contains("[exit code 127]"), "{text}");
    }

    #[test]
    fn long_output_keeps_both_ends_and_its_limit() {
        let text = run("echo first; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo last").unwrap();
        assert!(text.starts_with("first\nxxx") && text.contains("xxx\nlast\n[to see what was cut"), "{text}");
        assert!(text.contains("[998512 bytes of output cut here]") && text.len() <= 2_000, "{text}");
        // Bytes that are not text take more room when they are shown.
        let text = run("head -c 1000000 /dev/zero | tr '\\0' '\\377'").unwrap();
        assert!(text.len() <= 2_000);
    }

    #[test]
    fn the_model_may_ask_for_less_time_but_not_for_more() {
        let place = TestDirectory::new();
        let short = Surroundings { timeout: Duration::from_millis(200), ..surroundings(&place) };
        for timeout in [json!(null), json!(600)] {
            let result = run_in(&short, json!({"command": "sleep 50", "timeout_seconds": timeout}));
            let expected = "[no output]\n[ended because it took longer than 0.2 s; ended by signal 15]";
            assert_eq!(result, Err(ToolError::Failed(expected.to_owned())));
        }
        let result = run_in(&surroundings(&place), json!({"command": "sleep 50", "timeout_seconds": 1}));
        assert!(result.unwrap_err().to_string().contains("took longer than 1 s"));
    }

    #[test]
    fn a_command_that_ends_well_when_told_to_has_still_timed_out() {
        let place = TestDirectory::new();
        let short = Surroundings { timeout: Duration::from_millis(300), ..surroundings(&place) };
        let result = run_in(&short, json!({"command": "trap 'exit 0' TERM; sleep 50 & wait"}));
        assert!(matches!(result, Err(ToolError::Failed(_))), "{result:?}");
    }

    #[test]
    fn only_the_given_environment_is_seen() {
        let place = TestDirectory::new();
        let mut surroundings = surroundings(&place);
        surroundings.environment.push(("GIVEN".into(), "yes".into()));
        let text = run_in(
            &surroundings,
            json!({"command": "echo $GIVEN; echo ${CARGO_MANIFEST_DIR-unset}; echo ${HOME-unset}"}),
        );
        assert_eq!(text.unwrap(), "yes\nunset\nunset\n");
    }

    #[test]
    fn a_background_process_is_told_about() {
        let text = run("setsid sleep 20 & echo started").unwrap();
        assert!(text.starts_with("started\n[a process left in the background"), "{text}");
    }

    #[test]
    fn odd_arguments_are_told() {
        let place = TestDirectory::new();
        for arguments in [json!({}), json!({"command": " "}), json!({"command": "ls", "timeout_seconds": 0})] {
            assert!(matches!(run_in(&surroundings(&place), arguments), Err(ToolError::Arguments(_))));
        }
        assert!(matches!(run("echo \0"), Err(ToolError::Failed(_))));
    }

    #[test]
    fn without_a_shell_it_says_so_at_the_start() {
        let place = TestDirectory::new();
        let error = Shell::probe(place.path().as_os_str()).unwrap_err();
        assert!(error.starts_with("there is no `sh` in PATH"), "{error}");
        assert!(Shell::probe(OsStr::new("")).is_err());
    }

    #[test]
    fn the_limit_is_in_the_description() {
        let spec = Shell::spec(Duration::from_secs(120));
        assert_eq!(spec.parameters["properties"]["timeout_seconds"]["maximum"], 120);
    }
}
