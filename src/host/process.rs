//! The only spawner: start a program, feed it, capture what it prints, and leave nothing of it behind.
//!
//! One thread does all of it with `poll`: two pipes (its stdin; its stdout and stderr, which share one, so that they stay in
//! the order they were written) and the question whether the child has ended. That question has no descriptor that works on
//! every kernel, so it is asked every few milliseconds. It knows nothing of tools or of why something is run.
//!
//! The child leads a process group of its own, and the group is killed at the end of every call, however it ends. So
//! what a command starts in the background ends with the command. The leader is reaped only after that: until then its
//! number, which is the group's, cannot come to mean somebody else. Only a process that moved to another session (a daemon)
//! escapes; it is noticed when it keeps the pipe open, and does not hold the call up for longer than [`DRAIN_WAIT_MAX`].
//!
//! What may surprise: the environment is built from nothing. A child sees the pairs it is given, and none of our keys.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::Deadline;
use super::stop::Hold;
use super::sys::{self, GroupId, PollEntry, Signal};

/// How long a group may take to end after SIGTERM before it gets SIGKILL.
pub const TERMINATE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long output is still read after the child has ended, when another process keeps the pipe open.
pub const DRAIN_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a killed process may take to be gone. Longer means that it hangs in the kernel, on a dead network disk for one.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long killed processes that we inherited are waited for.
const STRAY_WAIT_MAX: Duration = Duration::from_millis(100);
/// How often it is looked whether the child has ended: soon at first, then less and less.
const EXIT_CHECK_WAIT_MIN: Duration = Duration::from_millis(1);
const EXIT_CHECK_WAIT_MAX: Duration = Duration::from_millis(50);
/// Read at once. A pipe holds this much by default.
const READ_BYTES: usize = 64 * 1024;

/// What to run and within which limits.
#[derive(Debug)]
pub struct Process {
    /// A name to be found in the `PATH` of `environment`, or a path, which counts from `directory`.
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub directory: PathBuf,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// What it reads; when empty, it reads the end of the file at once.
    pub stdin: Vec<u8>,
    /// How much of its output is kept: one half from the beginning, one from the end.
    pub output_bytes_max: usize,
    /// When it is made to end.
    pub deadline: Deadline,
}

/// How a process ended and what it printed.
#[derive(Debug, PartialEq)]
pub struct Ended {
    pub status: ExitStatus,
    pub output: Output,
    /// The deadline came first; the status is that of being killed, or of ending when asked to.
    pub timed_out: bool,
    /// Something that the process started keeps its output open; what it prints after this is lost.
    pub output_was_kept_open: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    /// It could not be killed, or somebody else reaped it.
    Unknown,
}

impl ExitStatus {
    pub fn is_success(self) -> bool {
        self == ExitStatus::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(formatter, "exit code {code}"),
            ExitStatus::Signal(signal) => write!(formatter, "ended by signal {signal}"),
            ExitStatus::Unknown => formatter.write_str("exit status unknown"),
        }
    }
}

/// Stdout and stderr in the order they were written, the middle left out when there was too much. Bytes that are not UTF-8
/// are replaced, so that the text of binary output is at most three times `output_bytes_max` long.
#[derive(Debug, Default, PartialEq)]
pub struct Output {
    /// All of it, or its beginning.
    pub head: String,
    /// Its end, when something was left out.
    pub tail: String,
    /// How many bytes between the two were left out.
    pub cut_bytes: u64,
}

impl Output {
    /// Everything in one text, with a line about what was left out.
    pub fn text(&self) -> String {
        match self.cut_bytes {
            0 => format!("{}{}", self.head, self.tail),
            cut => format!("{}\n[{cut} bytes of output cut here]\n{}", self.head, self.tail),
        }
    }
}

/// Runs a process to its end. Blocks until then, at most until its deadline and a few seconds for killing it.
pub fn run(process: &Process) -> Result<Ended, ProcessError> {
    let mut running = Running::start(process)?;
    match running.wait_for_exit().and_then(|()| running.drain()) {
        Ok(output_was_kept_open) => Ok(running.finish(output_was_kept_open)),
        // Dropping it kills it.
        Err(cause) => Err(ProcessError::Watch { program: shown(&process.program), cause }),
    }
}

/// The executable file that `name` means: found in `path`, the value of a `PATH` variable, unless it is a path itself.
/// Relative directories in `path` do not count: they would mean something else in another directory.
pub fn find_program(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|file| is_executable(file));
    }
    path.as_bytes()
        .split(|byte| *byte == b':')
        .map(|directory| Path::new(OsStr::from_bytes(directory)))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

/// Why a process did not run.
#[derive(Debug)]
pub enum ProcessError {
    /// There is no such program in the `PATH` of its environment, or at its path.
    NotFound { program: String },
    /// There is a file, and it is not a program.
    NotExecutable { program: String },
    /// The directory to run in is missing.
    Directory { program: String, directory: String },
    /// The kernel refused to start it.
    Start { program: String, cause: io::Error },
    /// It was started and could not be watched; it has been killed.
    Watch { program: String, cause: io::Error },
    /// Too many processes are alive.
    TooMany { program: String },
}

impl fmt::Display for ProcessError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessError::NotFound { program } => {
                write!(formatter, "{program}: no such program, install it in the image or name one that is there")
            }
            ProcessError::NotExecutable { program } => {
                write!(formatter, "{program}: is not an executable file, set its mode or name another program")
            }
            ProcessError::Directory { program, directory } => {
                write!(formatter, "{program}: cannot run in {directory}, which is not a directory")
            }
            ProcessError::Start { program, cause } => {
                write!(formatter, "{program}: cannot be started: {cause}{}", start_advice(cause))
            }
            ProcessError::Watch { program, cause } => {
                write!(formatter, "{program}: was killed because its output could not be read: {cause}")
            }
            ProcessError::TooMany { program } => write!(
                formatter,
                "{program}: not started, {} process groups are alive already, end some first",
                sys::WATCHED_GROUPS_MAX
            ),
        }
    }
}

impl std::error::Error for ProcessError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProcessError::Start { cause, .. } | ProcessError::Watch { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

fn start_advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        // The file itself was found before, so it is what the file needs.
        io::ErrorKind::NotFound => ", the interpreter in its first line or its dynamic loader is missing",
        io::ErrorKind::ArgumentListTooLong => ", pass less as arguments and more by stdin or a file",
        io::ErrorKind::PermissionDenied => ", this user may not execute it",
        io::ErrorKind::InvalidInput => ", an argument or a variable holds a NUL byte",
        _ => "",
    }
}

/// A program and what it is started with.
#[derive(Debug)]
pub struct Start<'a> {
    pub program: &'a OsStr,
    pub arguments: &'a [OsString],
    pub directory: &'a Path,
    pub environment: &'a [(OsString, OsString)],
}

/// A child of ours that leads a process group of its own. Dropping it kills the group and reaps it.
pub struct Leader {
    child: Child,
    group: GroupId,
    life: Life,
}

/// A child that has been started.
struct Running<'process> {
    process: &'process Process,
    leader: Leader,
    /// `None` once everything has been written or nobody reads any more.
    stdin: Option<ChildStdin>,
    /// How much of the process's stdin has been written.
    fed_bytes: usize,
    /// `None` once every writer has closed it.
    output: Option<PipeReader>,
    buffer: Vec<u8>,
    captured: Capture,
    timed_out: bool,
}

/// What has become of a child.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    Alive,
    /// It has ended and not been reaped: its number is still its own.
    Ended,
    /// Reaped, by us or by somebody else: its number must not be used any more.
    Reaped,
}

impl Leader {
    /// Starts a program with these three: what it reads, and what it writes.
    pub fn start(start: &Start<'_>, [stdin, stdout, stderr]: [Stdio; 3]) -> Result<Leader, ProcessError> {
        let mut command = Command::new(resolve(start)?);
        command
            .args(start.arguments)
            .current_dir(start.directory)
            .env_clear()
            .envs(start.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        // A stop between the two steps would leave the child behind.
        let hold = Hold::start();
        let mut child =
            command.spawn().map_err(|cause| ProcessError::Start { program: shown(start.program), cause })?;
        // It holds our copies of the pipe's writing end. With them open, the output would never end.
        drop(command);
        let Some(group) = GroupId::new(child.id()).filter(|group| sys::watch_group(*group)) else {
            // Not reaped yet, so this is still the child that we started.
            let _ = child.kill().and_then(|()| child.wait());
            return Err(ProcessError::TooMany { program: shown(start.program) });
        };
        drop(hold);
        Ok(Leader { child, group, life: Life::Alive })
    }

    /// Our ends of the pipes that it was started with.
    pub fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Asks the kernel whether the child has ended.
    pub fn is_alive(&mut self) -> bool {
        if self.life == Life::Alive {
            match sys::has_exited(self.group) {
                Ok(false) => {}
                Ok(true) => self.life = Life::Ended,
                // There is no such child of ours: somebody reaped it.
                Err(_) => self.life = Life::Reaped,
            }
        }
        self.life == Life::Alive
    }

    pub fn signal(&self, signal: Signal) {
        if self.life == Life::Reaped {
            return;
        }
        // Failing means that it may not be signaled (it changed its user); the waiting is bounded all the same.
        let _ = sys::kill_group(self.group, signal);
        if signal == Signal::Kill {
            // It may have moved to another group. Not for SIGTERM: a second one means "at once" to many programs.
            let _ = sys::kill_leader(self.group, signal);
        }
    }

    /// Gives the child's number back to the system and returns how it ended.
    pub fn reap(&mut self) -> ExitStatus {
        // First: afterwards the number may be somebody else's, whom a signal handler must not kill.
        sys::unwatch_group(self.group);
        let life = std::mem::replace(&mut self.life, Life::Reaped);
        // Waiting for one that is still alive could take for ever.
        let status = if life == Life::Ended { self.child.wait().ok() } else { None };
        self.reap_strays();
        status.map_or(ExitStatus::Unknown, |status| match (status.code(), status.signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, Some(signal)) => ExitStatus::Signal(signal),
            (None, None) => ExitStatus::Unknown,
        })
    }

    /// What a command left behind is adopted by us, as process 1 and elsewhere, and only we can reap it. What was in its group
    /// has been killed and is waited for; orphans that left the group are taken as they are found.
    fn reap_strays(&self) {
        let deadline = Deadline::after(STRAY_WAIT_MAX);
        while !sys::reap_group(self.group) && !deadline.has_passed() {
            // Without entries it only waits, and that cannot fail.
            let _ = sys::poll(&mut [], EXIT_CHECK_WAIT_MIN);
        }
        sys::reap_orphans();
    }

    /// Kills the group and waits until the child is gone. Returns how it ended, or had ended before.
    pub fn end(&mut self) -> ExitStatus {
        self.signal(Signal::Kill);
        let deadline = Deadline::after(KILL_WAIT_MAX);
        while self.is_alive() && !deadline.has_passed() {
            // Without entries it only waits, and that cannot fail.
            let _ = sys::poll(&mut [], EXIT_CHECK_WAIT_MIN);
        }
        self.reap()
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.life != Life::Reaped {
            self.end();
        }
    }
}

impl<'process> Running<'process> {
    fn start(process: &'process Process) -> Result<Running<'process>, ProcessError> {
        let failed = |cause| ProcessError::Start { program: shown(&process.program), cause };
        let start = Start {
            program: &process.program,
            arguments: &process.arguments,
            directory: &process.directory,
            environment: &process.environment,
        };
        let (output, writer) = io::pipe().map_err(failed)?;
        sys::set_nonblocking(output.as_fd()).map_err(failed)?;
        let stdin = if process.stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
        let mut leader = Leader::start(&start, [stdin, writer.try_clone().map_err(failed)?.into(), writer.into()])?;
        let (stdin, _, _) = leader.pipes();
        stdin.as_ref().map_or(Ok(()), |stdin| sys::set_nonblocking(stdin.as_fd())).map_err(failed)?;
        Ok(Running {
            process,
            leader,
            stdin,
            fed_bytes: 0,
            output: Some(output),
            buffer: vec![0; READ_BYTES],
            captured: Capture::new(process.output_bytes_max),
            timed_out: false,
        })
    }

    /// Feeds and reads until the child has ended, of itself or because its time was over.
    fn wait_for_exit(&mut self) -> io::Result<()> {
        let mut deadline = self.process.deadline;
        let mut measures = [(Signal::Terminate, TERMINATE_WAIT_MAX), (Signal::Kill, KILL_WAIT_MAX)].into_iter();
        let mut check_wait = EXIT_CHECK_WAIT_MIN;
        while self.leader.is_alive() {
            if deadline.has_passed() {
                let Some((signal, wait)) = measures.next() else {
                    return Ok(());
                };
                self.timed_out = true;
                self.leader.signal(signal);
                deadline = Deadline::after(wait);
            }
            let has_moved = self.exchange(check_wait.min(deadline.left()))?;
            check_wait = if has_moved { EXIT_CHECK_WAIT_MIN } else { EXIT_CHECK_WAIT_MAX.min(check_wait * 2) };
        }
        Ok(())
    }

    /// Reads what is left and ends the group. True when somebody still keeps the output open.
    fn drain(&mut self) -> io::Result<bool> {
        self.stdin = None;
        if !self.timed_out {
            self.read_until_closed()?;
        }
        let was_kept_open = self.output.is_some();
        self.leader.signal(Signal::Kill);
        if !self.timed_out {
            return Ok(was_kept_open);
        }
        self.read_until_closed()?;
        Ok(self.output.is_some())
    }

    fn read_until_closed(&mut self) -> io::Result<()> {
        let deadline = Deadline::after(DRAIN_WAIT_MAX);
        while self.output.is_some() && !deadline.has_passed() {
            self.exchange(deadline.left())?;
        }
        Ok(())
    }

    fn finish(mut self, output_was_kept_open: bool) -> Ended {
        let status = self.leader.reap();
        let output = std::mem::replace(&mut self.captured, Capture::new(0)).into_output();
        Ended { status, output, timed_out: self.timed_out, output_was_kept_open }
    }

    /// Waits until the child reads, writes or `wait` is over, and moves what can be moved. False when nothing happened.
    fn exchange(&mut self, wait: Duration) -> io::Result<bool> {
        let mut entries = Vec::with_capacity(2);
        entries.extend(self.output.as_ref().map(|output| PollEntry::new(output.as_fd(), sys::POLLIN)));
        entries.extend(self.stdin.as_ref().map(|stdin| PollEntry::new(stdin.as_fd(), sys::POLLOUT)));
        sys::poll(&mut entries, wait)?;
        let is_ready = entries.iter().any(PollEntry::is_ready);
        if is_ready {
            self.feed();
            self.read()?;
        }
        Ok(is_ready)
    }

    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        let left = self.process.stdin.get(self.fed_bytes..).unwrap_or_default();
        match stdin.write(left) {
            Ok(count) => self.fed_bytes += count,
            Err(error) if is_momentary(&error) => return,
            // The child does not want the rest, which is its right.
            Err(_) => self.fed_bytes = self.process.stdin.len(),
        }
        if self.fed_bytes >= self.process.stdin.len() {
            self.stdin = None;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        match output.read(&mut self.buffer) {
            Ok(0) => self.output = None,
            Ok(count) => self.captured.push(self.buffer.get(..count).unwrap_or_default()),
            Err(error) if is_momentary(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The beginning and the end of what is pushed, within a fixed number of bytes.
struct Capture {
    head: Vec<u8>,
    head_bytes_max: usize,
    tail: VecDeque<u8>,
    tail_bytes_max: usize,
    cut_bytes: u64,
}

impl Capture {
    fn new(bytes_max: usize) -> Capture {
        let tail_bytes_max = bytes_max / 2;
        let head_bytes_max = bytes_max - tail_bytes_max;
        Capture { head: Vec::new(), head_bytes_max, tail: VecDeque::new(), tail_bytes_max, cut_bytes: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        let (for_head, rest) = bytes.split_at(bytes.len().min(self.head_bytes_max - self.head.len()));
        self.head.extend_from_slice(for_head);
        let (skipped, kept) = rest.split_at(rest.len().saturating_sub(self.tail_bytes_max));
        let displaced = (self.tail.len() + kept.len()).saturating_sub(self.tail_bytes_max);
        self.tail.drain(..displaced);
        self.tail.extend(kept);
        self.cut_bytes += (skipped.len() + displaced) as u64;
    }

    fn into_output(mut self) -> Output {
        let tail: &[u8] = self.tail.make_contiguous();
        if self.cut_bytes == 0 {
            // One piece, so that a character on the border stays whole.
            self.head.extend_from_slice(tail);
            return Output { head: String::from_utf8_lossy(&self.head).into_owned(), ..Output::default() };
        }
        // A character that the cut went through belongs to what was cut.
        let (head, head_rest) = self.head.split_at(self.head.len() - unfinished_bytes(&self.head));
        let (tail_rest, tail) = tail.split_at(tail.iter().take(3).take_while(|byte| is_continuation(**byte)).count());
        Output {
            head: String::from_utf8_lossy(head).into_owned(),
            tail: String::from_utf8_lossy(tail).into_owned(),
            cut_bytes: self.cut_bytes + (head_rest.len() + tail_rest.len()) as u64,
        }
    }
}

/// How many bytes at the end of `bytes` begin a UTF-8 character without finishing it.
fn unfinished_bytes(bytes: &[u8]) -> usize {
    let continued = bytes.iter().rev().take(3).take_while(|byte| is_continuation(**byte)).count();
    let wanted = match bytes.iter().rev().nth(continued) {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        _ => 1,
    };
    if continued + 1 < wanted { continued + 1 } else { 0 }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The file to execute, absolute, so that it means the same in the child's directory as here.
fn resolve(process: &Start<'_>) -> Result<PathBuf, ProcessError> {
    let program = shown(process.program);
    if !process.directory.is_dir() {
        return Err(ProcessError::Directory { program, directory: process.directory.display().to_string() });
    }
    if process.program.as_bytes().contains(&b'/') {
        let file = process.directory.join(process.program);
        return match file.try_exists() {
            Ok(true) if !is_executable(&file) => Err(ProcessError::NotExecutable { program }),
            Ok(true) => std::path::absolute(file).map_err(|cause| ProcessError::Start { program, cause }),
            _ => Err(ProcessError::NotFound { program }),
        };
    }
    let path = process.environment.iter().rev().find(|(name, _)| name == "PATH");
    path.and_then(|(_, path)| find_program(process.program, path)).ok_or(ProcessError::NotFound { program })
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn shown(program: &OsStr) -> String {
    program.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::thread::JoinHandle;
    use std::time::Instant;

    use super::*;
    use crate::testing::{Random, TestDirectory, check_property};

    const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
    /// Longer than anything here takes, so that reaching it means that something hangs.
    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Process {
        Process {
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            directory: "/".into(),
            environment: vec![("PATH".into(), PATH.into())],
            stdin: Vec::new(),
            output_bytes_max: 10_000,
            deadline: Deadline::after(LONG),
        }
    }

    fn run_shell(script: &str) -> Ended {
        run(&shell(script)).unwrap()
    }

    /// Runs `script` until it gets as far as printing `ready` before its deadline, which on a busy machine may take a
    /// second try with more time.
    fn run_past_deadline(script: &str) -> Ended {
        for milliseconds in [300, 3_000, 30_000] {
            let deadline = Deadline::after(Duration::from_millis(milliseconds));
            let ended = run(&Process { deadline, ..shell(script) }).unwrap();
            assert!(ended.timed_out);
            if ended.output.head.contains("ready") {
                return ended;
            }
        }
        panic!("never got ready");
    }

    /// A FIFO at `fifo` whose reader ends when the last process that holds its writing end has ended.
    fn fifo_and_reader(place: &TestDirectory) -> JoinHandle<Vec<u8>> {
        let fifo = place.join("fifo");
        assert!(run_shell(&format!("mkfifo {}", fifo.display())).status.is_success());
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            File::open(fifo).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        })
    }

    #[test]
    fn output_and_errors_come_in_the_order_they_were_written() {
        let ended = run_shell("echo one; echo two >&2; echo three; exit 3");
        assert_eq!(ended.output.text(), "one\ntwo\nthree\n");
        assert_eq!(ended.status, ExitStatus::Code(3));
        assert!(!ended.timed_out && !ended.output_was_kept_open);
    }

    #[test]
    fn a_signal_is_told_from_an_exit_code() {
        assert_eq!(run_shell("kill -9 $$").status, ExitStatus::Signal(9));
        assert_eq!(run_shell("exit 137").status, ExitStatus::Code(137));
    }

    #[test]
    fn the_environment_is_exactly_what_is_given() {
        let mut process = shell("/usr/bin/env");
        process.environment.push(("GREETING".into(), "hello".into()));
        let text = run(&process).unwrap().output.text();
        // `PWD` and `_` are the shell's own.
        let mut names: Vec<&str> = text.lines().map(|line| line.split('=').next().unwrap()).collect();
        names.retain(|name| !["PWD", "OLDPWD", "_", "SHLVL"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["GREETING", "PATH"], "{text}");
    }

    #[test]
    fn it_runs_where_it_is_told() {
        let place = TestDirectory::new();
        let ended = run(&Process { directory: place.path().to_owned(), ..shell("pwd -P") }).unwrap();
        assert_eq!(ended.output.text().trim(), place.path().to_str().unwrap());
    }

    #[test]
    fn without_input_the_end_of_the_file_is_read_at_once() {
        assert_eq!(run_shell("cat; echo done").output.text(), "done\n");
    }

    #[test]
    fn input_bigger_than_a_pipe_goes_in_while_output_comes_out() {
        let stdin: Vec<u8> = (0..3_000_000_u32).map(|number| b'a' + (number % 26) as u8).collect();
        let process = Process { stdin: stdin.clone(), output_bytes_max: 4_000_000, ..shell("cat") };
        assert_eq!(run(&process).unwrap().output.text().into_bytes(), stdin);
    }

    #[test]
    fn input_that_nobody_reads_is_no_error() {
        let process = Process { stdin: vec![b'x'; 1_000_000], ..shell("exec <&-; echo fine") };
        let ended = run(&process).unwrap();
        assert_eq!((ended.output.text().as_str(), ended.status), ("fine\n", ExitStatus::Code(0)));
        let ended = run(&Process { stdin: vec![b'x'; 1_000_000], ..shell("head -c 3") }).unwrap();
        assert_eq!(ended.output.text(), "xxx");
    }

    #[test]
    fn a_hundred_megabytes_keep_their_head_and_tail_and_are_counted() {
        let process = Process { output_bytes_max: 1_000, ..shell("echo begin; head -c 100000000 /dev/zero; echo end") };
        let mut running = Running::start(&process).unwrap();
        running.wait_for_exit().unwrap();
        running.drain().unwrap();
        let capture = &running.captured;
        assert!(
            capture.head.capacity() <= 4 * 1_000 && capture.tail.capacity() <= 4 * 1_000,
            "memory grew with output"
        );
        let output = running.finish(false).output;
        assert!(output.head.starts_with("begin\n") && output.tail.ends_with("end\n"));
        assert_eq!(output.head.len() + output.tail.len(), 1_000);
        assert_eq!(output.cut_bytes, 100_000_010 - 1_000);
        assert!(output.text().contains("\n[99999010 bytes of output cut here]\n"));
    }

    #[test]
    fn output_that_is_not_utf8_becomes_text() {
        assert_eq!(run_shell("printf 'a\\377b'").output.text(), "a\u{fffd}b");
    }

    #[test]
    fn the_deadline_ends_a_process_and_keeps_what_it_printed() {
        let ended = run_past_deadline("echo ready; exec sleep 60");
        assert_eq!(ended.status, ExitStatus::Signal(15));
        assert_eq!(ended.output.text(), "ready\n");
        assert!(!ended.output_was_kept_open);
    }

    #[test]
    fn a_process_may_use_its_grace_to_say_goodbye() {
        let ended = run_past_deadline("trap 'echo bye; exit 7' TERM; echo ready; sleep 60 & wait");
        assert_eq!((ended.output.text().as_str(), ended.status), ("ready\nbye\n", ExitStatus::Code(7)));
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed_with_all_it_started() {
        let place = TestDirectory::new();
        let reader = fifo_and_reader(&place);
        let script = format!("trap '' TERM; exec 3>{}; echo ready; sleep 60; sleep 60", place.join("fifo").display());
        let ended = run_past_deadline(&script);
        assert_eq!(ended.status, ExitStatus::Signal(9));
        assert!(!ended.output_was_kept_open);
        reader.join().unwrap();
    }

    #[test]
    fn what_runs_in_the_background_ends_with_the_call() {
        let place = TestDirectory::new();
        let reader = fifo_and_reader(&place);
        let started = Instant::now();
        let ended = run_shell(&format!("sleep 60 >{} 2>&1 & echo started", place.join("fifo").display()));
        assert_eq!((ended.output.text().as_str(), ended.output_was_kept_open), ("started\n", false));
        reader.join().unwrap();
        assert!(started.elapsed() < Duration::from_secs(30), "was waited for");
    }

    #[test]
    fn a_background_process_that_keeps_the_output_open_is_noticed_and_killed() {
        let place = TestDirectory::new();
        let reader = fifo_and_reader(&place);
        let script = format!("exec 3>{}; (echo before; sleep 60; echo after) & exit 4", place.join("fifo").display());
        let ended = run_shell(&script);
        assert_eq!((ended.output.text().as_str(), ended.status), ("before\n", ExitStatus::Code(4)));
        assert!(ended.output_was_kept_open && !ended.timed_out);
        reader.join().unwrap();
    }

    #[test]
    fn a_daemon_that_keeps_the_output_open_does_not_hold_the_call() {
        let started = Instant::now();
        let ended = run_shell("setsid sleep 20 & echo started");
        assert_eq!(ended.output.text(), "started\n");
        assert!(ended.output_was_kept_open);
        assert!(started.elapsed() < Duration::from_secs(15));
        let ended = run_past_deadline("setsid sleep 20 & echo ready; exec sleep 60");
        assert!(ended.output_was_kept_open && ended.timed_out);
    }

    #[test]
    fn a_process_that_starts_others_without_end_is_killed_with_all_of_them() {
        let place = TestDirectory::new();
        let reader = fifo_and_reader(&place);
        let fifo = place.join("fifo");
        run_past_deadline(&format!("exec 3>{}; echo ready; while :; do sleep 60 & done", fifo.display()));
        reader.join().unwrap();
    }

    #[test]
    fn a_process_that_prints_without_end_is_killed_at_its_deadline() {
        let ended = run_past_deadline("echo ready; exec yes");
        assert_eq!(ended.status, ExitStatus::Signal(15));
        assert!(ended.timed_out);
    }

    #[test]
    fn a_process_that_closes_its_output_is_still_waited_for() {
        let place = TestDirectory::new();
        let script = format!("exec >&- 2>&-; : >{}; exit 5", place.join("done").display());
        assert_eq!(run_shell(&script).status, ExitStatus::Code(5));
        assert!(place.join("done").exists());
    }

    #[test]
    fn a_deadline_in_the_past_still_ends_in_order() {
        let ended = run(&Process { deadline: Deadline::after(Duration::ZERO), ..shell("sleep 60") }).unwrap();
        assert!(ended.timed_out);
    }

    #[test]
    fn a_call_that_fails_midway_leaves_nothing_alive() {
        let place = TestDirectory::new();
        let reader = fifo_and_reader(&place);
        let process = shell(&format!("exec 3>{}; sleep 60", place.join("fifo").display()));
        let running = Running::start(&process).unwrap();
        // The reader has opened the FIFO as soon as somebody writes to it.
        drop(File::options().write(true).open(place.join("fifo")).unwrap());
        drop(running);
        reader.join().unwrap();
    }

    #[test]
    fn an_argument_is_one_argument_whatever_is_in_it() {
        let mut process = shell(r#"printf '<%s>' "$@""#);
        process.arguments.extend(["sh", "two words", "$(id)", "", "a\nb", "*"].map(OsString::from));
        assert_eq!(run(&process).unwrap().output.text(), "<two words><$(id)><><a\nb><*>");
    }

    #[test]
    fn a_program_that_cannot_run_says_why() {
        let place = TestDirectory::new();
        let text = place.write("text", "not a program");
        let broken = place.write("broken", "#!/no/such/interpreter\n");
        fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
        let error_of = |program: &str| {
            let process = Process { program: program.into(), directory: place.path().into(), ..shell("") };
            run(&process).unwrap_err().to_string()
        };
        let missing = "no-such-program: no such program, install it in the image or name one that is there";
        assert_eq!(error_of("no-such-program"), missing);
        assert_eq!(error_of("./missing"), missing.replace("no-such-program", "./missing"));
        assert!(error_of("").contains("no such program"));
        assert!(
            error_of(text.to_str().unwrap())
                .ends_with("is not an executable file, set its mode or name another program")
        );
        assert!(error_of("./text").contains("is not an executable file"));
        assert!(error_of(place.path().to_str().unwrap()).contains("is not an executable file"));
        assert!(error_of("./broken").contains("the interpreter in its first line"), "{}", error_of("./broken"));
        let process = Process { directory: place.join("nowhere"), ..shell("") };
        assert!(run(&process).unwrap_err().to_string().contains("which is not a directory"));
        let mut process = shell("");
        process.arguments.push("a\0b".into());
        assert!(run(&process).unwrap_err().to_string().contains("NUL byte"));
        process.arguments = vec!["-c".into(), "x".repeat(200_000).into()];
        assert!(run(&process).unwrap_err().to_string().contains("pass less as arguments"));
    }

    #[test]
    fn a_program_is_found_in_absolute_directories_only() {
        let place = TestDirectory::new();
        let tool = place.write("bin/tool", "");
        let path = format!("relative::.:/nowhere:{}", place.join("bin").display());
        assert_eq!(find_program(OsStr::new("tool"), OsStr::new(&path)), None, "not executable");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program(OsStr::new("tool"), OsStr::new(&path)), Some(tool.clone()));
        assert_eq!(find_program(tool.as_os_str(), OsStr::new("")), Some(tool));
        assert_eq!(find_program(OsStr::new("bin"), place.path().as_os_str()), None, "a directory");
        assert_eq!(find_program(OsStr::new(""), OsStr::new(&path)), None);
        assert!(find_program(OsStr::new("sh"), OsStr::new(PATH)).is_some());
    }

    #[test]
    fn what_is_captured_is_beginning_and_end_however_it_arrives() {
        check_property(2_000, |random: &mut Random| {
            let bytes_max = random.below(40);
            let text: String = (0..random.below(60)).map(|_| random.pick(&['a', 'é', '€', '🙂', '\n'])).collect();
            let mut capture = Capture::new(bytes_max);
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random.below(rest.len().min(50)));
                capture.push(piece);
                rest = after;
            }
            assert!(capture.head.len() <= capture.head_bytes_max && capture.tail.len() <= capture.tail_bytes_max);
            let output = capture.into_output();
            assert!(text.starts_with(&output.head) && text.ends_with(&output.tail), "{text:?} {output:?}");
            let kept = output.head.len() + output.tail.len();
            assert_eq!(kept as u64 + output.cut_bytes, text.len() as u64);
            assert!(kept <= bytes_max && (output.cut_bytes > 0 || kept == text.len()));
            // At most three bytes on either side of the cut belong to a character that it went through.
            assert!(output.cut_bytes == 0 || kept + 6 >= bytes_max, "{text:?} {output:?}");
        });
    }

    #[test]
    fn captured_bytes_of_any_kind_do_not_panic() {
        check_property(1_000, |random: &mut Random| {
            let mut capture = Capture::new(random.below(10));
            for _ in 0..random.below(10) {
                let bytes: Vec<u8> =
                    (0..random.below(8)).map(|_| random.pick(&[0, b'a', 0x80, 0xbf, 0xc3, 0xe2, 0xf0, 0xff])).collect();
                capture.push(&bytes);
            }
            capture.into_output();
        });
    }
}
