//! thoughtmesh-runtime: runs one AI agent as a Kubernetes Job and leaves with an exit code that can be believed.
//!
//! ```text
//!  env vars ──▶ Config ──▶ Agent ─────────────────────────────▶ Outcome ──▶ exit code
//!               config/      │  agent.rs                  ▲      outcome.rs  + termination message
//!                            ▼                            │                  + last line of stdout
//!                     ┌─ Conversation ◀── ToolResult ◀── Toolbox
//!                     │  conversation.rs                  ▲ tools/
//!                     ▼                                   │
//!        wire: encode → request body           decide(&Turn) → Next    (progress.rs)
//!                     ▼                                   ▲
//!        host/http.rs → response bytes ── wire: decode ─▶ Turn
//! ```
//!
//! The house:
//!
//! ```text
//! src/
//! ├── main.rs              the front door: the whole line on one screen, and this map
//! ├── agent.rs             the loop: ask, record, act; the one module that knows every room
//! ├── progress.rs          where a run stands: its records added up, and what follows from a turn. Pure
//! ├── journal.rs           append-only record of the run, from which a later process goes on
//! ├── outcome.rs           how an agent ends → exit code, termination message. Pure
//! ├── conversation.rs      the nouns: Conversation, Message, ToolCall, ToolResult, Turn, Record
//! ├── prompt.rs            all words of ours that the model reads. Pure
//! ├── budget.rs            what is spent, what the next call may cost, and when to say so. Pure
//! ├── compaction.rs        a conversation that no longer fits: what to shorten, where to cut. Pure
//! ├── trail.rs             what the tools did in this run, bounded. Pure
//! ├── verify.rs            are the key results met? checks by command
//! ├── verifier.rs          are the key results met? the second opinion of another model
//! ├── secret.rs            what must not leave, and how it is masked. Pure
//! ├── sort.rs              sorting, compiled once. Pure
//! ├── testing.rs           for tests only: the random generator, the golden files
//! ├── config/              ENVIRONMENT → Config, all mistakes in one go
//! │   ├── mod.rs           the whole; the only reader of the environment
//! │   ├── model.rs         which model, where, with which key
//! │   ├── provider.rs      each provider's names, variables and default URL
//! │   ├── tools.rs         which tools, within which limits
//! │   ├── network.rs       proxies and private roots
//! │   ├── options.rs       what only one kind of tool is told
//! │   ├── context.rs       what the model is told of all other variables, and what is a secret
//! │   └── read.rs          JSON that a person wrote
//! ├── wire/                OTHER PEOPLE'S FORMATS. Pure: values in, values out
//! │   ├── mod.rs           WireFormat: one match each for encode, decode, explain
//! │   ├── anthropic.rs     Messages
//! │   ├── openai.rs        Chat Completions
//! │   ├── responses.rs     OpenAI Responses
//! │   ├── gemini.rs        generateContent (the Gemini API and Vertex AI serve it)
//! │   ├── mistral.rs       Chat Completions as Mistral speaks it
//! │   ├── ollama.rs        /api/chat
//! │   ├── mcp.rs           JSON-RPC and the messages of MCP that we send and read
//! │   └── sse.rs           event-stream framing: bytes → events
//! ├── model/               ONE QUESTION TO A LANGUAGE MODEL, MADE DEPENDABLE
//! │   ├── mod.rs           Model: a provider, or a file that is replayed
//! │   ├── connection.rs    a provider: encode → post → decode, with retries
//! │   ├── endpoint.rs      provider → URL, headers, parameters. Pure
//! │   ├── credential.rs    a key, or a Google access token that is renewed
//! │   ├── ollama.rs        the size of the context, and whether the prompt fitted
//! │   ├── retry.rs         fault and attempt → wait this long, or give up. Pure
//! │   └── replay.rs        answers from a file instead of a provider
//! ├── tools/               WHAT THE MODEL MAY DO
//! │   ├── mod.rs           Toolbox: the list the model sees, and the one match that runs a call
//! │   ├── files.rs         read, write, edit and list inside the workspace
//! │   ├── search.rs        find files by name and text in them
//! │   ├── shell.rs         a command line that the model wrote
//! │   ├── git.rs           look at history and record it, walled in
//! │   ├── code_analyzer.rs where a source tree is large, deep and repetitive
//! │   ├── code_metrics.rs  numbers about one source file. Pure
//! │   ├── ignore.rs        the common forms of .gitignore. Pure
//! │   ├── web.rs           an HTTP request on the model's behalf
//! │   ├── command.rs       a command of the user's
//! │   ├── mcp.rs           MCP servers as sources of tools: all of them together
//! │   ├── mcp_server.rs    one of them: begin, list, call, and begin again
//! │   ├── mcp_http.rs      a server over HTTP, in the ways of three revisions
//! │   ├── mcp_stdio.rs     a server that is a child of ours
//! │   ├── mcp_desk.rs      what a server says and asks beside the answer that is waited for
//! │   ├── mcp_fault.rs     what goes wrong with a server, in words. Pure
//! │   ├── mcp_names.rs     names for its tools that every provider takes. Pure
//! │   ├── child.rs         a process that a tool starts, told to the model
//! │   ├── finish.rs        the model says it is done, and how each key result stands
//! │   ├── schema.rs        do the arguments fit the tool's schema? Pure
//! │   ├── walk.rs          every file beneath a directory, bounded
//! │   ├── glob.rs          patterns of file names. Pure
//! │   └── excerpt.rs       text cut honestly. Pure
//! └── host/                THE MACHINE. The only doors to the outside
//!     ├── mod.rs           Deadline: the limit that a blocking call is given
//!     ├── http.rs          the only user of ureq
//!     ├── process.rs       the only spawner
//!     ├── dialog.rs        a process that is talked with, line by line
//!     ├── workspace.rs     files that a model names, confined by the kernel
//!     ├── stop.rs          SIGTERM ends the run from within its handler
//!     ├── sys.rs           the only unsafe code
//!     └── log.rs           env_logger set up once; one line an event
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod budget;
mod compaction;
mod config;
mod conversation;
mod host;
mod journal;
mod model;
mod outcome;
mod progress;
mod prompt;
mod secret;
mod sort;
#[cfg(test)]
mod testing;
mod tools;
mod trail;
mod verifier;
mod verify;
mod wire;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use log::{error, info, warn};

use crate::agent::Agent;
use crate::config::read::Reader;
use crate::config::{Config, ConfigError, Environment, ExitCodes, LogFormat, Reading, Reporting};
use crate::host::http::Roots;
use crate::host::stop::Hold;
use crate::journal::{Journal, Past};
use crate::model::Model;
use crate::outcome::{Fatal, Outcome, Reason};
use crate::progress::Progress;
use crate::secret::Secrets;
use crate::tools::{Toolbox, finish};
use crate::trail::Trail;

fn main() -> ExitCode {
    let hold = watch_for_stop();
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => execute(Mode::Run, hold),
        ["--check"] => execute(Mode::Check, hold),
        ["--help" | "-h"] => print(&help()),
        ["--version" | "-V"] => print(concat!("thoughtmesh-runtime ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => execute(Mode::BadArguments, hold),
    }
}

/// What the process was started for.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Run,
    Check,
    BadArguments,
}

/// Before anything else, so that no signal finds us without a handler: as process 1 it would be lost.
///
/// A stop waits while the hold lives: until it is known where the message goes, and the message is there.
fn watch_for_stop() -> Hold {
    let hold = Hold::start();
    let stopped = Outcome::of_stop("starting");
    let (before, after) = stopped.to_stop_message();
    // Before the handlers are there, so that they never find nothing to say.
    host::stop::prepare(&before, 0.0, &after);
    host::stop::watch(host::stop::ExitCodes {
        terminated: stopped.exit_code(ExitCodes::Simple),
        interrupted: Outcome::exit_code_of_interrupt(ExitCodes::Simple),
    });
    hold
}

/// Environment in, verdict out.
fn execute(mode: Mode, hold: Hold) -> ExitCode {
    // Before anything is read: from here on no child can look for it in our memory.
    let inspection = host::sys::forbid_inspection();
    let Ok(reading) = catch_unwind(move || {
        let environment = Environment::of_process();
        let reporting = config::read_reporting(&mut Reader::default(), &environment);
        host::stop::report_to(&reporting.termination_log, reporting.is_termination_log_chosen);
        drop(hold);
        config::read(&environment)
    }) else {
        return report(&Outcome::of_defect("a defect in reading the configuration"), &Reporting::default());
    };
    let Reading { reporting, config, warnings } = reading;
    let secrets = config.as_ref().map(|config| config.secrets.clone()).unwrap_or_default();
    start_log(&reporting, secrets);
    for warning in warnings {
        warn!("config: {warning}");
    }
    if let Err(error) = inspection {
        warn!("runtime: other processes of this user can read our memory ({error})");
    }
    let ended = guarded(|| match mode {
        Mode::Run => Ended::With(run(config)),
        Mode::Check => check(config),
        Mode::BadArguments => Ended::With(Outcome::of_fatal(&Fatal::Config(vec![ConfigError {
            variable: "arguments".to_owned(),
            path: String::new(),
            what: "not known, accepted: none, --check, --version, --help".to_owned(),
        }]))),
    });
    match ended {
        Ended::With(outcome) => report(&outcome, &reporting),
        Ended::Checked(description) => print(&description),
    }
}

/// What there is to say at the end.
enum Ended {
    With(Outcome),
    /// Of `--check`, when nothing is wrong.
    Checked(String),
}

/// Runs it. A panic is an outcome too, so that the message is written in any case.
fn guarded(work: impl FnOnce() -> Ended) -> Ended {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        host::sys::kill_watched_groups();
        Ended::With(Outcome::of_defect("a defect in the runtime ended the run; the log says where"))
    })
}

fn run(config: Result<Config, Vec<ConfigError>>) -> Outcome {
    let started = Instant::now();
    match prepare(config) {
        Ok(Prepared::Agent(agent)) => agent.run(),
        Ok(Prepared::Ended(outcome)) => outcome,
        Err(fatal) => {
            let mut outcome = Outcome::of_fatal(&fatal);
            // Servers may have been waited for.
            outcome.spent.seconds = started.elapsed().as_secs_f64();
            outcome
        }
    }
}

fn check(config: Result<Config, Vec<ConfigError>>) -> Ended {
    match prepare(config) {
        Ok(Prepared::Agent(agent)) => Ended::Checked(agent.describe()),
        Ok(Prepared::Ended(outcome)) => {
            Ended::Checked(format!("nothing: the journal holds a run that has ended\n{}\n", outcome.to_json()))
        }
        Err(fatal) => Ended::With(Outcome::of_fatal(&fatal)),
    }
}

/// What is there before the first model call.
enum Prepared {
    Agent(Box<Agent>),
    /// The journal holds a run that has come to its end: it is not run again.
    Ended(Outcome),
}

/// Everything that can be found wrong before the first model call.
fn prepare(config: Result<Config, Vec<ConfigError>>) -> Result<Prepared, Fatal> {
    let config = config?;
    let opened = config.journal.as_ref().map(|path| Journal::open(path, &config.fingerprint)).transpose()?;
    let (journal, past) = opened.map_or_else(|| (None, Past::default()), |(journal, past)| (Some(journal), past));
    let trail = Trail::new(config.verifier.is_some(), finish::NAME, config.secrets.clone());
    let mut progress = Progress::new(prompt::opening(&config), config.key_results.len(), trail);
    past.records.into_iter().for_each(|record| progress.add(record));
    if let Some(outcome) = progress.outcome(past.seconds) {
        info!("journal: the run has ended already, its outcome is told again");
        return Ok(Prepared::Ended(outcome));
    }
    verify::probe(&config)?;
    let network = &config.network;
    let roots = Roots::load(network.roots_file.as_deref(), &network.roots_directories).map_err(Fatal::of_roots)?;
    let toolbox = Toolbox::open(&config, &roots)?;
    let model = Model::new(&config.model, network, &roots, &config.secrets)?;
    let verifier =
        config.verifier.as_ref().map(|verifier| Model::new(verifier, network, &roots, &config.secrets)).transpose()?;
    info!("agent: {}; tools: {}", model.describe(), toolbox.describe());
    if let Some(verifier) = &verifier {
        info!("verifier: {}", verifier.describe());
    }
    Ok(Prepared::Agent(Box::new(Agent::new(config, model, verifier, toolbox, journal, progress, past.seconds))))
}

fn start_log(reporting: &Reporting, secrets: Secrets) {
    let form = match reporting.log_format {
        LogFormat::Text => host::log::Form::Text,
        LogFormat::Json => host::log::Form::Json,
    };
    host::log::start(form, reporting.log_filter.as_deref(), move |text| secrets.mask(text).into_owned());
    std::panic::set_hook(Box::new(|panic| {
        // Where, and not with what: a panic's message can hold a value.
        let place = panic.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        error!("runtime: a defect{place}; please report it");
    }));
}

/// Termination message, last line of stdout, last line of the log, exit code.
fn report(outcome: &Outcome, reporting: &Reporting) -> ExitCode {
    // The outcome is decided: a signal that comes now changes neither it nor the code.
    host::stop::Hold::start().for_good();
    match outcome.reason {
        Reason::Finished => info!("outcome: achieved"),
        reason => {
            outcome.result.lines().for_each(|line| error!("{line}"));
            error!("outcome: not achieved, {}", reason.word());
        }
    }
    let file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .create(reporting.is_termination_log_chosen)
        .open(&reporting.termination_log);
    let written = file.and_then(|mut file| file.write_all(outcome.to_termination_message().as_bytes()));
    match written {
        Err(error) if reporting.is_termination_log_chosen || error.kind() != io::ErrorKind::NotFound => {
            let path = reporting.termination_log.display();
            warn!("THOUGHTMESH_TERMINATION_LOG: {path}: the termination message cannot be written ({error})");
        }
        _ => {}
    }
    let line = format!("{}\n", outcome.to_json());
    if let Err(error) = host::log::write_patiently(&mut io::stdout(), line.as_bytes()) {
        warn!("stdout: the result cannot be written ({error})");
    }
    ExitCode::from(outcome.exit_code(reporting.exit_codes))
}

/// Answers `--help` and its like. That nobody reads it is no failure.
fn print(text: &str) -> ExitCode {
    let _ = host::log::write_patiently(&mut io::stdout(), text.as_bytes());
    ExitCode::SUCCESS
}

fn help() -> String {
    let mut text = concat!(
        "thoughtmesh-runtime ",
        env!("CARGO_PKG_VERSION"),
        ": runs one AI agent and exits 0 only when its objective is achieved.\n\n",
        "Without arguments it runs the agent that the environment describes.\n",
        "  --check    reads everything and probes the tools, asks no model; says what would run\n",
        "  --version  the version\n",
        "  --help     this text\n\nEnvironment variables:\n"
    )
    .to_owned();
    for (name, what) in config::VARIABLES {
        text.push_str(&format!("  {name:28} {what}\n"));
    }
    for (_, provider) in config::Provider::WORDS {
        let names = provider.key_variables().iter().map(|(name, _)| *name).chain(provider.url_variable());
        let names: Vec<&str> = names.filter(|name| !text.contains(name)).collect();
        if !names.is_empty() {
            text.push_str(&format!("  {:28} key or base URL of {}\n", names.join(", "), provider.name()));
        }
    }
    text.push_str("  SSL_CERT_FILE, SSL_CERT_DIR  PEM roots added to the built-in ones\n");
    text.push_str("  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY  as curl reads them\n");
    text.push_str("  RUST_LOG                     error, warn, info or debug, default info\n");
    text.push_str(
        "\nEvery other variable is told to the model as context, of a secret only its name. README.md has it all.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_outcome() {
        let Ended::With(outcome) = guarded(|| panic!("planted")) else { panic!("no outcome") };
        assert_eq!(outcome.reason, Reason::InternalError);
        assert_eq!(outcome.exit_code(config::ExitCodes::Detailed), 70);
    }
}
