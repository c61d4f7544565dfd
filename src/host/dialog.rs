//! A process that is talked with, line by line, for as long as both want: a server over stdin and stdout.
//!
//! One thread does all of it with `poll`: whoever waits for a line also writes what is unsent and reads stderr, so that
//! neither side can hold up the other. It knows nothing of what the lines mean.
//!
//! What may surprise: nobody reads stderr between two waits. Its pipe is made as large as the kernel lets us, and what
//! does not fit holds the server up until the next wait.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use super::Deadline;
use super::process::{ExitStatus, Leader, ProcessError, Start};
use super::sys::{self, PollEntry, Signal};

/// Of one line of stdout; a server that sends more is broken or hostile.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of one line of stderr; a longer one becomes several.
const COMPLAINT_BYTES_MAX: usize = 8 * 1024;
/// Of stderr that nobody has taken; what comes after it is lost.
const COMPLAINTS_BYTES_MAX: usize = 256 * 1024;
/// What may wait to be read by the other side.
const UNSENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What the pipe of stderr should hold; more is not given to users without privileges (pipe(7), read 2026-11).
const PIPE_BYTES: usize = 1024 * 1024;
/// How often it is looked whether the child has ended while somebody else keeps its output open.
const EXIT_CHECK_WAIT: Duration = Duration::from_millis(200);
const READ_BYTES: usize = 64 * 1024;

/// A process and the pipes to it. Dropping it kills its group.
pub struct Dialog {
    leader: Leader,
    /// `None` once it is closed, by us or by the other side.
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    unsent: Vec<u8>,
    /// How much of `unsent` has been written.
    sent_bytes: usize,
    spoken: Vec<u8>,
    /// How much of `spoken` has been given as lines, and how much beyond that is known to hold no line end.
    given_bytes: usize,
    searched_bytes: usize,
    complaints: Vec<u8>,
    buffer: Vec<u8>,
}

/// What a wait for a line brought.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// Without its line end.
    Line(Vec<u8>),
    /// A line longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// There is no more.
    End,
    /// The time is over.
    Nothing,
}

impl Dialog {
    pub fn start(start: &Start<'_>) -> Result<Dialog, ProcessError> {
        let mut leader = Leader::start(start, [Stdio::piped(), Stdio::piped(), Stdio::piped()])?;
        let (stdin, stdout, stderr) = leader.pipes();
        let failed = |cause| ProcessError::Start { program: start.program.to_string_lossy().into_owned(), cause };
        let files =
            [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for file in files.into_iter().flatten() {
            sys::set_nonblocking(file).map_err(failed)?;
        }
        stderr.iter().for_each(|stderr| sys::enlarge_pipe(stderr.as_fd(), PIPE_BYTES));
        Ok(Dialog {
            leader,
            stdin,
            stdout,
            stderr,
            unsent: Vec::new(),
            sent_bytes: 0,
            spoken: Vec::new(),
            given_bytes: 0,
            searched_bytes: 0,
            complaints: Vec::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Says a line, now or as soon as the other side reads. What is too much for it to take is dropped.
    pub fn say(&mut self, line: &[u8]) {
        if self.stdin.is_some() && self.unsent.len() + line.len() < UNSENT_BYTES_MAX {
            self.unsent.extend_from_slice(line);
            self.unsent.push(b'\n');
            self.feed();
        }
    }

    /// Whether something that was said has not been taken.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The next line, waited for at most this long.
    pub fn hear(&mut self, wait: Duration) -> io::Result<Heard> {
        let deadline = Deadline::after(wait);
        loop {
            if let Some(line) = self.next_line() {
                return Ok(Heard::Line(line));
            }
            if self.spoken.len() > LINE_BYTES_MAX {
                return Ok(Heard::TooLong);
            }
            if self.stdout.is_none() {
                return Ok(Heard::End);
            }
            if self.exchange(deadline.left().min(EXIT_CHECK_WAIT))? {
                continue;
            }
            if !self.leader.is_alive() {
                return Ok(Heard::End);
            }
            if deadline.has_passed() {
                return Ok(Heard::Nothing);
            }
        }
    }

    /// The whole lines that it wrote to stderr since the last time, and the beginning of one that is too long.
    pub fn take_complaints(&mut self) -> Vec<String> {
        let end = match self.complaints.iter().rposition(|byte| *byte == b'\n') {
            // Nobody will end the last line any more.
            _ if self.stderr.is_none() => self.complaints.len(),
            Some(end) => end + 1,
            None if self.complaints.len() >= COMPLAINT_BYTES_MAX => self.complaints.len(),
            None => 0,
        };
        let rest = self.complaints.split_off(end);
        let whole = std::mem::replace(&mut self.complaints, rest);
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }

    /// Nothing more will be said: the other side should end.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// Whether it is still there. Reads what it writes, so that it cannot be held up by that.
    pub fn is_alive(&mut self) -> bool {
        let _ = self.exchange(Duration::ZERO);
        self.spoken.clear();
        (self.given_bytes, self.searched_bytes) = (0, 0);
        self.leader.is_alive()
    }

    pub fn ask_to_end(&self) {
        self.leader.signal(Signal::Terminate);
    }

    /// Kills it, if it has not ended, and says how it did.
    pub fn end(&mut self) -> ExitStatus {
        // What it said at last.
        while self.stderr.is_some() && self.complaints.len() < COMPLAINT_BYTES_MAX {
            if !self.exchange(Duration::ZERO).unwrap_or(false) {
                break;
            }
        }
        self.stderr = None;
        self.leader.end()
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let rest = self.spoken.get(self.searched_bytes..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            // Only now, so that a thousand short lines are not moved a thousand times.
            self.spoken.drain(..std::mem::take(&mut self.given_bytes));
            self.searched_bytes = self.spoken.len();
            return None;
        };
        let end = self.searched_bytes + length;
        let line = self.spoken.get(self.given_bytes..end).unwrap_or_default().trim_ascii_end().to_vec();
        (self.given_bytes, self.searched_bytes) = (end + 1, end + 1);
        Some(line)
    }

    /// Waits until something can be moved or `wait` is over, and moves it. False when nothing happened.
    fn exchange(&mut self, wait: Duration) -> io::Result<bool> {
        let mut entries = Vec::with_capacity(3);
        entries.extend(self.stdout.as_ref().map(|file| PollEntry::new(file.as_fd(), sys::POLLIN)));
        entries.extend(self.stderr.as_ref().map(|file| PollEntry::new(file.as_fd(), sys::POLLIN)));
        let stdin = self.stdin.as_ref().filter(|_| !self.unsent.is_empty());
        entries.extend(stdin.map(|file| PollEntry::new(file.as_fd(), sys::POLLOUT)));
        sys::poll(&mut entries, wait)?;
        let is_ready = entries.iter().any(PollEntry::is_ready);
        if is_ready {
            self.feed();
            read(&mut self.stdout, &mut self.buffer, &mut self.spoken)?;
            read(&mut self.stderr, &mut self.buffer, &mut self.complaints)?;
            self.complaints.truncate(COMPLAINTS_BYTES_MAX);
        }
        Ok(is_ready)
    }

    fn feed(&mut self) {
        while let Some(stdin) = self.stdin.as_mut().filter(|_| !self.unsent.is_empty()) {
            match stdin.write(self.unsent.get(self.sent_bytes..).unwrap_or_default()) {
                Ok(count) => self.sent_bytes += count,
                Err(error) if is_momentary(&error) => return,
                // Nobody reads any more; that the other side has gone is noticed by what it does not say.
                Err(_) => self.stdin = None,
            }
            if self.sent_bytes == self.unsent.len() {
                self.unsent.clear();
                self.sent_bytes = 0;
            }
        }
    }
}

/// Reads once. The file is `None` after its end.
fn read(file: &mut Option<impl Read>, buffer: &mut [u8], into: &mut Vec<u8>) -> io::Result<()> {
    let Some(open) = file else { return Ok(()) };
    match open.read(buffer) {
        Ok(0) => *file = None,
        Ok(count) => into.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        Err(error) if is_momentary(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};
    use std::path::Path;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Dialog {
        let arguments = ["-c".into(), OsString::from(script)];
        let environment = [("PATH".into(), "/usr/bin:/bin".into())];
        let (program, directory) = (OsStr::new("sh"), Path::new("/"));
        Dialog::start(&Start { program, arguments: &arguments, directory, environment: &environment }).unwrap()
    }

    #[test]
    fn lines_go_both_ways() {
        let mut dialog = shell("echo hello; while read line; do echo \"<$line>\"; done");
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::Line(b"hello".to_vec()));
        dialog.say(b"a");
        dialog.say(b"b");
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::Line(b"<a>".to_vec()));
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::Line(b"<b>".to_vec()));
        assert_eq!(dialog.hear(Duration::ZERO).unwrap(), Heard::Nothing);
        dialog.close();
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::End);
        assert_eq!(dialog.end(), ExitStatus::Code(0));
    }

    #[test]
    fn neither_side_holds_up_the_other() {
        // More than all pipes hold, and nobody reads before the other has written.
        let mut dialog = shell("yes complaint | head -n 300000 >&2; cat");
        let line = vec![b'x'; 3_000_000];
        dialog.say(&line);
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::Line(line));
    }

    #[test]
    fn the_end_comes_also_when_a_grandchild_keeps_the_output() {
        let mut dialog = shell("sleep 60 & echo a; exit 3");
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::Line(b"a".to_vec()));
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::End);
        assert_eq!(dialog.end(), ExitStatus::Code(3));
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut dialog = shell("exec cat /dev/zero");
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::TooLong);
        assert_eq!(dialog.end(), ExitStatus::Signal(9));
    }

    #[test]
    fn complaints_are_lines_and_the_last_needs_no_end() {
        let mut dialog = shell("printf 'one\\ntwo\\nthr' >&2; exec >&-; exec 2>&-; sleep 60");
        assert_eq!(dialog.hear(LONG).unwrap(), Heard::End);
        dialog.end();
        assert_eq!(dialog.take_complaints(), ["one", "two", "thr"]);
    }
}
