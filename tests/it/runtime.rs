//! The runtime as its users see it: the built executable, an environment, a workspace, and what it left behind.
//!
//! [`Runtime`] is the description of one run, [`Running`] the process, [`Ended`] everything that can be asked afterwards. A
//! failed assertion prints all of it. Every run is also held to what must always be true: the script of its server was
//! played, its requests keep the rules of their format, and [`API_KEY`] is nowhere in what came out.
//! What may surprise: the environment holds nothing but `PATH`, the three `THOUGHTMESH_` variables that a run cannot do
//! without (objective, model, termination log), and what the test adds.

use std::ffi::OsString;
use std::fmt;
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chat;
use crate::server::{Exchange, Request, Script, ScriptedServer};

/// The key that [`Runtime::plays`] and [`Runtime::model`] configure.
pub const API_KEY: &str = "sk-test-4f9c2e7b81d05a36";

/// The key that [`Runtime::verifier_plays`] configures.
pub const VERIFIER_KEY: &str = "sk-verify-91d7b3e80c5a26f4";

/// The longest that a run may take, unless [`Runtime::timeout`] says otherwise.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long stdout and stderr may stay open after the process has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);
/// `O_NONBLOCK` of Linux on every architecture that we build for.
const O_NONBLOCK: i32 = 0o4000;
/// Starts a program as process 1 of a namespace of processes, with its own `/proc`.
const UNSHARE: [&str; 6] = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
/// How much of each thing a failed assertion prints, in bytes.
const PRINT_BYTES_MAX: usize = 12_000;

/// Where stdout or stderr of the process leads.
#[derive(Clone, Copy, PartialEq)]
pub enum Stream {
    Captured,
    /// The descriptor is closed when the process starts.
    Closed,
    /// A pipe whose reading end is gone: every write fails.
    ReaderGone,
    /// A full pipe that nobody reads: every blocking write lasts for ever.
    NobodyReads,
}

/// One run, described.
pub struct Runtime {
    scratch: Scratch,
    arguments: Vec<OsString>,
    /// What the executable is started by, with its arguments.
    starter: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    model: Model,
    server: Option<ScriptedServer>,
    script: Option<Arc<Script>>,
    verifier: Option<ScriptedServer>,
    verifier_fields: Value,
    stdout: Stream,
    stderr: Stream,
    timeout: Duration,
    is_process_1: bool,
    /// Commands of the shell that starts the process.
    prelude: String,
    /// Requests that the server saw in earlier runs.
    requests_before: usize,
    verifier_requests_before: usize,
}

struct Model {
    url: String,
    fields: Value,
}

impl Runtime {
    /// A run with an objective and no model; without a server it is a configuration error.
    pub fn new() -> Runtime {
        let scratch = Scratch::new();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let termination_log = scratch.path.join("termination-log").into_os_string();
        Runtime {
            arguments: Vec::new(),
            starter: Vec::new(),
            environment: vec![
                ("PATH".into(), path),
                ("THOUGHTMESH_TERMINATION_LOG".into(), termination_log),
                ("THOUGHTMESH_OBJECTIVE".into(), "Write the report.".into()),
            ],
            model: Model { url: String::new(), fields: Value::Null },
            server: None,
            script: None,
            verifier: None,
            verifier_fields: Value::Null,
            stdout: Stream::Captured,
            stderr: Stream::Captured,
            timeout: RUN_TIMEOUT,
            is_process_1: false,
            prelude: String::new(),
            requests_before: 0,
            verifier_requests_before: 0,
            scratch,
        }
    }

    pub fn objective(self, text: &str) -> Runtime {
        self.env("THOUGHTMESH_OBJECTIVE", text)
    }

    pub fn key_results(self, list: Value) -> Runtime {
        self.env("THOUGHTMESH_KEY_RESULTS", &list.to_string())
    }

    pub fn tools(self, list: Value) -> Runtime {
        self.env("THOUGHTMESH_TOOLS", &list.to_string())
    }

    /// Tools by name alone.
    pub fn tools_named(self, names: &[&str]) -> Runtime {
        let list = names.iter().map(|name| json!({"name": name})).collect();
        self.tools(list)
    }

    pub fn limits(self, object: Value) -> Runtime {
        self.env("THOUGHTMESH_LIMITS", &object.to_string())
    }

    /// A model that plays these exchanges.
    pub fn plays(self, exchanges: impl IntoIterator<Item = Exchange>) -> Runtime {
        self.serves(ScriptedServer::plays(exchanges))
    }

    /// As [`Runtime::model`]; the server lasts as long as the run.
    pub fn serves(mut self, server: ScriptedServer) -> Runtime {
        self = self.model(&server);
        self.server = Some(server);
        self
    }

    /// A model at this server, by the provider `openai-compatible`.
    pub fn model(mut self, server: &ScriptedServer) -> Runtime {
        self.script = Some(server.script().clone());
        self.model.url = server.url();
        self.model.fields = json!({
            "provider": "openai-compatible", "name": "test-model", "endpoint": format!("{}/v1", server.url()),
            "api_key": API_KEY,
        });
        self
    }

    /// A verifier that plays these exchanges, at a server of its own.
    pub fn verifier_plays(mut self, exchanges: impl IntoIterator<Item = Exchange>) -> Runtime {
        let server = ScriptedServer::plays(exchanges);
        self.verifier_fields = json!({
            "provider": "openai-compatible", "name": "verifier-model", "endpoint": format!("{}/v1", server.url()),
            "api_key": VERIFIER_KEY,
        });
        self.verifier = Some(server);
        self
    }

    /// Replaces the verifier's configuration by one made from its server's URL (no slash at its end).
    pub fn verifier_config(mut self, config: impl Fn(&str) -> Value) -> Runtime {
        self.verifier_fields =
            config(&self.verifier.as_ref().expect("verifier_config comes after verifier_plays").url());
        self
    }

    /// Adds these fields to the model's configuration, or replaces them; `null` removes one.
    pub fn model_with(mut self, fields: Value) -> Runtime {
        for (name, value) in fields.as_object().unwrap() {
            let object = self.model.fields.as_object_mut().expect("model_with comes after plays or model");
            match value {
                Value::Null => object.shift_remove(name),
                _ => object.insert(name.clone(), value.clone()),
            };
        }
        self
    }

    /// Replaces the model's configuration by one made from the server's URL (no slash at its end).
    pub fn model_config(mut self, config: impl Fn(&str) -> Value) -> Runtime {
        self.model.fields = config(&self.model.url);
        self
    }

    pub fn env(self, name: &str, value: &str) -> Runtime {
        self.env_raw(name, OsString::from(value))
    }

    /// A variable whose name and value need not be UTF-8. The last one of a name counts.
    pub fn env_raw(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Runtime {
        let name = name.into();
        self.environment.retain(|(key, _)| *key != name);
        self.environment.push((name, value.into()));
        self
    }

    pub fn unset(mut self, name: &str) -> Runtime {
        self.environment.retain(|(key, _)| key != name);
        self
    }

    /// A file in the workspace.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Runtime {
        write(&self.workspace().join(path), content.as_ref());
        self
    }

    /// A file beside the workspace, where the agent must not get; `../path` from within.
    pub fn file_outside(self, path: &str, content: impl AsRef<[u8]>) -> Runtime {
        write(&self.scratch.path.join(path), content.as_ref());
        self
    }

    /// A symbolic link in the workspace.
    pub fn link(self, path: &str, target: impl AsRef<Path>) -> Runtime {
        std::os::unix::fs::symlink(target, self.workspace().join(path)).unwrap();
        self
    }

    pub fn arg(mut self, argument: impl Into<OsString>) -> Runtime {
        self.arguments.push(argument.into());
        self
    }

    /// The executable is started by this program, which gets its path as the last argument.
    pub fn started_by(mut self, words: &[&str]) -> Runtime {
        self.starter = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn stdout(mut self, stream: Stream) -> Runtime {
        self.stdout = stream;
        self
    }

    pub fn stderr(mut self, stream: Stream) -> Runtime {
        self.stderr = stream;
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Runtime {
        self.timeout = timeout;
        self
    }

    /// The journal of the run, beside the workspace.
    pub fn journal(self) -> Runtime {
        let path = self.path_outside("journal");
        self.env_raw("THOUGHTMESH_JOURNAL", path)
    }

    /// Runs these commands of a shell in the process before it becomes the runtime, such as `ulimit -f 100`.
    pub fn after(mut self, commands: &str) -> Runtime {
        self.prelude = format!("{commands}; ");
        self
    }

    /// Adds exchanges behind those that the server has left.
    pub fn goes_on(self, exchanges: impl IntoIterator<Item = Exchange>) -> Runtime {
        self.script.as_ref().expect("a server").goes_on(exchanges);
        self
    }

    /// Adds exchanges behind those that the verifier's server has left.
    pub fn verifier_goes_on(self, exchanges: impl IntoIterator<Item = Exchange>) -> Runtime {
        self.verifier.as_ref().expect("a verifier").script().goes_on(exchanges);
        self
    }

    /// Runs it as process 1 of a namespace, as in a container. `None` where this machine does not allow that.
    pub fn into_process_1(mut self) -> Option<Runtime> {
        self.is_process_1 = true;
        Command::new(UNSHARE[0])
            .args(&UNSHARE[1..])
            .arg("true")
            .output()
            .is_ok_and(|o| o.status.success())
            .then_some(self)
    }

    pub fn workspace(&self) -> PathBuf {
        self.scratch.path.join("workspace")
    }

    /// Where nothing is, beside the workspace.
    pub fn path_outside(&self, path: &str) -> PathBuf {
        self.scratch.path.join(path)
    }

    /// Runs to the end.
    #[track_caller]
    pub fn run(self) -> Ended {
        self.spawn().wait()
    }

    /// Starts the process and does not wait for it.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        if !self.model.fields.is_null() && !self.environment.iter().any(|(key, _)| key == "THOUGHTMESH_MODEL_CONFIG") {
            let config = match &self.verifier_fields {
                Value::Null => self.model.fields.to_string(),
                verifier => json!({"worker": self.model.fields, "verifier": verifier}).to_string(),
            };
            self = self.env("THOUGHTMESH_MODEL_CONFIG", &config);
        }
        let mut command = self.command();
        self.surround(&mut command);
        let (stdout, out_end) = Sink::open(self.stdout);
        let (stderr, err_end) = Sink::open(self.stderr);
        command.stdin(Stdio::null()).stdout(out_end).stderr(err_end);
        let started = Instant::now();
        let child = command.spawn().expect("the runtime starts");
        // The command holds our copies of the pipes' writing ends: readers would never see the end.
        drop(command);
        Running { group: child.id(), exit: wait_in_thread(child), stdout, stderr, started, runtime: self }
    }

    /// The command as it stands, with environment and directory, for whoever starts it in another way.
    pub fn bare_command(&mut self) -> Command {
        let config = self.model.fields.to_string();
        self.environment.push(("THOUGHTMESH_MODEL_CONFIG".into(), config.into()));
        let mut command = self.command();
        self.surround(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn surround(&self, command: &mut Command) {
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.workspace()).process_group(0);
    }

    fn command(&self) -> Command {
        let executable = env!("CARGO_BIN_EXE_thoughtmesh-runtime");
        let closes: Vec<&str> = [(self.stdout, ">&-"), (self.stderr, "2>&-")]
            .into_iter()
            .filter_map(|(stream, redirection)| (stream == Stream::Closed).then_some(redirection))
            .collect();
        let mut command = if self.is_process_1 {
            let mut unshare = Command::new(UNSHARE[0]);
            unshare.args(&UNSHARE[1..]).arg(executable);
            unshare
        } else if let Some((starter, words)) = self.starter.split_first() {
            let mut command = Command::new(starter);
            command.args(words).arg(executable);
            command
        } else if closes.is_empty() && self.prelude.is_empty() {
            Command::new(executable)
        } else {
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(format!("{}exec \"$0\" \"$@\" {}", self.prelude, closes.join(" "))).arg(executable);
            shell
        };
        command.args(&self.arguments);
        command
    }
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn wait_in_thread(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(child.wait().unwrap()));
    receiver
}

/// The reading side of stdout or stderr.
struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Hears when the last writer is gone; nothing when the stream is not captured.
    end: Option<Receiver<()>>,
    /// Keeps a pipe open that nobody reads.
    _unread: Option<PipeReader>,
}

impl Sink {
    fn open(stream: Stream) -> (Sink, Stdio) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut sink = Sink { bytes: Arc::default(), end: None, _unread: None };
        match stream {
            Stream::Closed => return (sink, Stdio::null()),
            Stream::ReaderGone => drop(reader),
            Stream::NobodyReads => {
                fill(&writer);
                sink._unread = Some(reader);
            }
            Stream::Captured => {
                let (sender, receiver) = channel();
                let bytes = sink.bytes.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    while let Ok(count @ 1..) = reader.read(&mut buffer) {
                        bytes.lock().unwrap().extend_from_slice(&buffer[..count]);
                    }
                    let _ = sender.send(());
                });
                sink.end = Some(receiver);
            }
        }
        (sink, writer.into())
    }

    /// What was written, and whether the stream came to its end.
    fn close(self) -> (String, bool) {
        let ended = self.end.is_none_or(|end| end.recv_timeout(OUTPUT_TIMEOUT).is_ok());
        let bytes = self.bytes.lock().unwrap();
        (String::from_utf8_lossy(&bytes).into_owned(), ended)
    }
}

/// Fills a pipe to its last byte, through a description of our own that does not block.
fn fill(writer: &impl AsRawFd) {
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut pipe = std::fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(path).unwrap();
    for size in [4096, 1] {
        while pipe.write(&[b'.'; 4096][..size]).is_ok() {}
    }
}

/// The process at work.
pub struct Running {
    group: u32,
    exit: Receiver<ExitStatus>,
    stdout: Sink,
    stderr: Sink,
    started: Instant,
    runtime: Runtime,
}

impl Running {
    /// Sends a signal, by its name without `SIG`, to the process and its group.
    pub fn signal_group(&self, signal: &str) {
        // Dash takes the group only in this form.
        let script = format!("kill -s {signal} -- -{}", self.group);
        let _ = Command::new("/bin/sh").arg("-c").arg(script).stderr(Stdio::null()).status();
    }

    /// The process's number; with [`Runtime::into_process_1`] that of the process which started it.
    pub fn id(&self) -> u32 {
        self.group
    }

    /// Sends a signal, by its name without `SIG`, to the process alone.
    pub fn signal(&self, signal: &str) {
        let target = match self.runtime.is_process_1 {
            false => self.group.to_string(),
            true => children_of(self.group).first().cloned().expect("process 1 of the namespace"),
        };
        let done = Command::new("/bin/sh").arg("-c").arg(format!("kill -{signal} {target}")).status();
        assert!(done.unwrap().success(), "{signal} was not sent");
    }

    /// Waits until the log holds this.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let has = || String::from_utf8_lossy(&self.stderr.bytes.lock().unwrap()).contains(text);
        wait_until(&format!("the log says {text:?}"), has);
    }

    /// Waits until there is such a file in the workspace, with something in it.
    #[track_caller]
    pub fn wait_for_file(&self, path: &str) {
        let path = self.runtime.workspace().join(path);
        wait_until(&format!("{} is written", path.display()), || {
            std::fs::metadata(&path).is_ok_and(|file| file.len() > 0)
        });
    }

    /// A file of the workspace, as it is now.
    pub fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.runtime.workspace().join(path)).ok()
    }

    pub fn path_outside(&self, path: &str) -> PathBuf {
        self.runtime.path_outside(path)
    }

    /// Waits until the journal holds this.
    #[track_caller]
    pub fn wait_for_journal(&self, text: &str) {
        let path = self.path_outside("journal");
        wait_until(&format!("the journal says {text:?}"), || {
            std::fs::read_to_string(&path).is_ok_and(|journal| journal.contains(text))
        });
    }

    /// Waits until the termination message is there.
    #[track_caller]
    pub fn wait_for_termination_message(&self) {
        let path = self.runtime.scratch.path.join("termination-log");
        wait_until("there is a termination message", || std::fs::metadata(&path).is_ok_and(|file| file.len() > 0));
    }

    /// Waits for `count` requests at the server.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) {
        self.runtime.script.as_ref().expect("a server").wait_for_requests(count);
    }

    /// Waits for `count` requests at the verifier's server.
    #[track_caller]
    pub fn wait_for_verifier_requests(&self, count: usize) {
        self.runtime.verifier.as_ref().expect("a verifier").script().wait_for_requests(count);
    }

    /// Waits for the end, and fails the test when the run breaks a rule that holds for all of them.
    #[track_caller]
    pub fn wait(self) -> Ended {
        let (status, timed_out) = match self.exit.recv_timeout(self.runtime.timeout) {
            Ok(status) => (status, false),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.signal_group("KILL");
                (self.exit.recv().unwrap(), true)
            }
        };
        let duration = self.started.elapsed();
        let ((stdout, stdout_ended), (stderr, stderr_ended)) = (self.stdout.close(), self.stderr.close());
        let mut requests = self.runtime.script.as_ref().map(|script| script.requests()).unwrap_or_default();
        let requests = requests.split_off(self.runtime.requests_before);
        let verifier_script = self.runtime.verifier.as_ref().map(|server| server.script().clone());
        let mut verifier_requests = verifier_script.as_ref().map(|script| script.requests()).unwrap_or_default();
        let verifier_requests = verifier_requests.split_off(self.runtime.verifier_requests_before);
        let runtime = self.runtime;
        let script = runtime.script.clone();
        let timeout = runtime.timeout;
        let ended = Ended {
            status,
            duration,
            stdout,
            stderr,
            stdout_is_captured: runtime.stdout == Stream::Captured,
            stderr_is_captured: runtime.stderr == Stream::Captured,
            termination: std::fs::read(runtime.scratch.path.join("termination-log")).ok(),
            requests,
            verifier_requests,
            runtime,
        };
        if timed_out {
            ended.fail(&format!("still running after {timeout:?}"));
        }
        if !stdout_ended || !stderr_ended {
            ended.fail("something that it started still holds stdout or stderr");
        }
        let scripts = [("the scripted server", script), ("the verifier's server", verifier_script)];
        for (name, script) in scripts {
            if let Some(problem) = script.and_then(|script| script.problems().into_iter().next()) {
                ended.fail(&format!("{name}: {problem}"));
            }
        }
        keep_for_interop(&ended.runtime.environment, &ended.requests);
        let all_requests = ended.requests.iter().chain(&ended.verifier_requests);
        for (index, request) in all_requests.enumerate().filter(|(_, request)| request.is_chat()) {
            if let Some(flaw) = chat::flaws(&request.json()).first() {
                ended.fail(&format!("request {}: {flaw}", index + 1));
            }
        }
        ended.never_says(API_KEY).never_says(VERIFIER_KEY);
        ended
    }
}

/// The numbers of the processes that a process has started.
fn children_of(id: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

/// Looks again and again; for what has no event of its own to wait for.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < RUN_TIMEOUT, "waited {RUN_TIMEOUT:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Writes the requests into the folder that `THOUGHTMESH_TEST_REQUESTS` names, for `just interop` to hold them to the vendors'
/// types. Without it nothing is written.
fn keep_for_interop(environment: &[(OsString, OsString)], requests: &[Request]) {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let Some(folder) = std::env::var_os("THOUGHTMESH_TEST_REQUESTS") else { return };
    let config = environment.iter().find(|(name, _)| name == "THOUGHTMESH_MODEL_CONFIG");
    let config: Value = config.and_then(|(_, value)| serde_json::from_str(value.to_str()?).ok()).unwrap_or_default();
    let model = config.get("worker").unwrap_or(&config);
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    for request in requests {
        let kept = json!({"test": test, "provider": model["provider"], "path": request.path, "body": request.json()})
            .to_string();
        let name = format!("{}.json", NEXT.fetch_add(1, Ordering::Relaxed));
        write(&Path::new(&folder).join(name), kept.as_bytes());
    }
}

/// Everything that a run left behind.
pub struct Ended {
    pub status: ExitStatus,
    pub duration: Duration,
    pub stdout: String,
    pub stderr: String,
    /// The termination message as it was written; nothing when no file was.
    pub termination: Option<Vec<u8>>,
    /// What the model's server saw, in order.
    pub requests: Vec<Request>,
    /// What the verifier's server saw.
    pub verifier_requests: Vec<Request>,
    stdout_is_captured: bool,
    stderr_is_captured: bool,
    runtime: Runtime,
}

impl Ended {
    /// The same run once more, with the same server, environment and files.
    pub fn again(self) -> Runtime {
        let mut runtime = self.runtime;
        runtime.requests_before = runtime.script.as_ref().map_or(0, |script| script.requests().len());
        runtime.verifier_requests_before =
            runtime.verifier.as_ref().map_or(0, |server| server.script().requests().len());
        runtime
    }

    /// The bytes of the journal.
    pub fn journal(&self) -> Vec<u8> {
        std::fs::read(self.runtime.scratch.path.join("journal")).unwrap_or_default()
    }

    /// The records of the journal.
    pub fn records(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.journal()).into_owned();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Ended {
        match self.status.code() == Some(code) {
            true => self,
            false => self.fail(&format!("exit code {code} expected")),
        }
    }

    /// The word of the outcome that a machine switches on, in the termination message and on stdout.
    #[track_caller]
    pub fn reason(&self, word: &str) -> &Ended {
        self.says_everywhere("reason", &json!(word))
    }

    #[track_caller]
    pub fn status(&self, word: &str) -> &Ended {
        self.says_everywhere("status", &json!(word))
    }

    #[track_caller]
    fn says_everywhere(&self, field: &str, value: &Value) -> &Ended {
        let mut outcomes = vec![("termination message", self.termination_message())];
        if self.stdout_is_captured {
            outcomes.push(("stdout", self.outcome()));
        }
        for (place, outcome) in outcomes {
            if outcome[field] != *value {
                self.fail(&format!("{place}: {field} {value} expected, not {}", outcome[field]));
            }
        }
        self
    }

    /// The object on stdout, which must be its only line.
    #[track_caller]
    pub fn outcome(&self) -> Value {
        let line = match self.stdout.strip_suffix('\n') {
            Some(line) if !line.contains('\n') => line,
            _ => self.fail("stdout is not one line"),
        };
        match serde_json::from_str(line) {
            Ok(value @ Value::Object(_)) => value,
            _ => self.fail("stdout is not one JSON object"),
        }
    }

    #[track_caller]
    pub fn termination_message(&self) -> Value {
        let Some(bytes) = &self.termination else { self.fail("there is no termination message") };
        if bytes.len() > 4096 {
            self.fail(&format!("the termination message has {} bytes", bytes.len()));
        }
        match serde_json::from_slice(bytes) {
            Ok(value @ Value::Object(_)) => value,
            _ => self.fail("the termination message is not one JSON object"),
        }
    }

    /// A number of the outcome.
    #[track_caller]
    pub fn counts(&self, field: &str, number: u64) -> &Ended {
        self.says_everywhere(field, &json!(number))
    }

    /// The log holds this, whatever the case.
    #[track_caller]
    pub fn log_has(&self, text: &str) -> &Ended {
        match self.stderr.to_lowercase().contains(&text.to_lowercase()) {
            true => self,
            false => self.fail(&format!("the log does not say {text:?}")),
        }
    }

    /// A person finds this in the log and in the termination message, whatever the case.
    #[track_caller]
    pub fn tells(&self, text: &str) -> &Ended {
        let message = self.termination_message()["result"].to_string();
        if !message.to_lowercase().contains(&text.to_lowercase()) {
            self.fail(&format!("the result in the termination message does not say {text:?}"));
        }
        self.log_has(text)
    }

    /// None of stdout, stderr and termination message holds this.
    #[track_caller]
    pub fn never_says(&self, secret: &str) -> &Ended {
        let termination = String::from_utf8_lossy(self.termination.as_deref().unwrap_or_default()).into_owned();
        for (place, text) in
            [("stdout", &self.stdout), ("stderr", &self.stderr), ("the termination message", &termination)]
        {
            if text.contains(secret) {
                self.fail(&format!("{place} says {secret:?}"));
            }
        }
        self
    }

    /// The run's configuration was wrong: it made no request, and says where to look.
    #[track_caller]
    pub fn complains_about(&self, places: &[&str]) -> &Ended {
        if !self.requests.is_empty() {
            self.fail("it asked the model in spite of a configuration error");
        }
        self.exits(1).status("failed").reason("config_invalid");
        for place in places {
            self.tells(place);
        }
        self
    }

    #[track_caller]
    pub fn check(&self, is_true: bool, what: &str) -> &Ended {
        match is_true {
            true => self,
            false => self.fail(what),
        }
    }

    /// The request of this number, from 1.
    #[track_caller]
    pub fn request(&self, number: usize) -> &Request {
        self.requests.get(number - 1).unwrap_or_else(|| self.fail(&format!("there is no request {number}")))
    }

    #[track_caller]
    pub fn last_request(&self) -> &Request {
        self.requests.last().unwrap_or_else(|| self.fail("there is no request"))
    }

    /// The tool result of this number, from 1, as the last request tells it.
    #[track_caller]
    pub fn tool_result(&self, number: usize) -> String {
        let results = self.last_request().tool_results();
        results.get(number - 1).cloned().unwrap_or_else(|| self.fail(&format!("there is no tool result {number}")))
    }

    #[track_caller]
    pub fn tool_result_has(&self, number: usize, text: &str) -> &Ended {
        match self.tool_result(number).to_lowercase().contains(&text.to_lowercase()) {
            true => self,
            false => self.fail(&format!("tool result {number} does not say {text:?}")),
        }
    }

    #[track_caller]
    pub fn tool_result_lacks(&self, number: usize, text: &str) -> &Ended {
        match self.tool_result(number).contains(text) {
            true => self.fail(&format!("tool result {number} says {text:?}")),
            false => self,
        }
    }

    pub fn workspace(&self) -> PathBuf {
        self.runtime.workspace()
    }

    /// A file of the workspace.
    pub fn file(&self, path: &str) -> Option<String> {
        let bytes = std::fs::read(self.runtime.scratch.path.join("workspace").join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file beside the workspace.
    pub fn file_outside(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.runtime.scratch.path.join(path)).ok()
    }

    #[track_caller]
    pub fn file_is(&self, path: &str, content: &str) -> &Ended {
        match self.file(path).as_deref() == Some(content) {
            true => self,
            false => self.fail(&format!("{path} is {:?}, not {content:?}", self.file(path))),
        }
    }

    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{self}");
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("killed by signal {signal:?}"),
        };
        writeln!(formatter, "--- {ending} after {:?} in {}", self.duration, self.runtime.scratch.path.display())?;
        let termination = self.termination.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        writeln!(formatter, "--- termination message\n{}", shown(termination.as_deref().unwrap_or("(none)")))?;
        if self.stdout_is_captured {
            writeln!(formatter, "--- stdout\n{}", shown(&self.stdout))?;
        }
        if self.stderr_is_captured {
            writeln!(formatter, "--- stderr\n{}", shown(&self.stderr))?;
        }
        for (name, requests) in [("request", &self.requests), ("request to the verifier", &self.verifier_requests)] {
            for (index, request) in requests.iter().enumerate() {
                writeln!(formatter, "--- {name} {}\n{}", index + 1, shown(&request.text()))?;
            }
        }
        Ok(())
    }
}

/// The text, or its head and tail.
fn shown(text: &str) -> String {
    if text.len() <= PRINT_BYTES_MAX {
        return text.to_owned();
    }
    let (bytes, half) = (text.as_bytes(), PRINT_BYTES_MAX / 2);
    let (head, tail) = (&bytes[..half], &bytes[bytes.len() - half..]);
    let left_out = bytes.len() - 2 * half;
    format!("{}\n[{left_out} bytes left out]\n{}", String::from_utf8_lossy(head), String::from_utf8_lossy(tail))
}

/// A directory of one run, removed unless its test failed.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("run-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A process of an earlier day may have had our number.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("workspace")).unwrap();
        Scratch { path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
