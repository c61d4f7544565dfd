//! Stopping: SIGTERM and SIGINT end the process from within their handler, in well under 100 ms, whatever it was doing.
//!
//! A flag would not do: std, ureq and rustls go on with a read that a signal interrupted, and as process 1 a signal without a
//! handler does nothing at all. So the handler itself ends every child, writes the message that the loop keeps prepared,
//! and leaves. It uses atomics and system calls and nothing else: no allocation, no lock, no buffer of std's.
//!
//! The message lies in one of two static buffers. The loop fills the one that is not current and then makes it current, so
//! that the handler, which runs on the same and only thread, always finds a whole one. What may surprise: the writes
//! of the handler have a time limit, an alarm, because any write may wait (a pipe that nobody reads, a slow disk), and
//! because no descriptor can be made non-blocking without changing it for others who hold it too.

use std::ffi::{CString, c_int};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::sys;

/// How long the writes of the handler may take together.
const WRITE_WAIT_MAX: Duration = Duration::from_millis(50);
/// How long it looks for processes that moved out of the groups that we know. A busy machine may need all of it.
const KILL_WAIT_MAX: Duration = Duration::from_millis(40);
/// Room for a message. With its line end it is a single write that a pipe takes whole (PIPE_BUF, pipe(7), read 2026-11).
pub const MESSAGE_BYTES_MAX: usize = 4095;
/// Room in it for the duration.
const NUMBER_BYTES_MAX: usize = 24;
/// Signals whose default action would end the process, and that mean nothing to us. They get a handler that does nothing,
/// because being ignored is handed on to every program that we start.
const MEANINGLESS: [c_int; 9] = [
    sys::SIGHUP,
    sys::SIGUSR1,
    sys::SIGUSR2,
    sys::SIGSTKFLT,
    // A file that may not grow: the write fails, and whoever wrote says so.
    sys::SIGXFSZ,
    sys::SIGVTALRM,
    sys::SIGPROF,
    sys::SIGIO,
    sys::SIGPWR,
];

/// The exit codes of the two signals.
#[derive(Clone, Copy)]
pub struct ExitCodes {
    pub terminated: u8,
    pub interrupted: u8,
}

/// Installs the handlers. The first thing that the program does.
pub fn watch(codes: ExitCodes) {
    let _ = STARTED.set(Instant::now());
    EXIT_CODE_TERMINATED.store(codes.terminated, Ordering::SeqCst);
    EXIT_CODE_INTERRUPTED.store(codes.interrupted, Ordering::SeqCst);
    // None can fail for these signals and this structure, and there would be nothing to do about it.
    let _ = sys::handle_signals(&[sys::SIGALRM], on_alarm);
    let _ = sys::handle_signals(&MEANINGLESS, on_meaningless);
    let _ = sys::handle_signals(&[sys::SIGTERM, sys::SIGINT], on_stop);
    // Where the kernel refuses, a child that moved to a session of its own outlives us, unless we are process 1.
    let _ = sys::adopt_orphans();
}

/// Tells where the termination message goes; `create`: also when there is no such file.
pub fn report_to(path: &Path, create: bool) {
    if let Ok(path) = CString::new(path.as_os_str().as_bytes()) {
        let _ = TERMINATION_LOG.set((path, create));
    }
}

/// Keeps the message that a stop would leave: `before`, the seconds since the start and `seconds_before` on top of them,
/// `after`. One that is too long is not kept, and the one before stays.
pub fn prepare(before: &str, seconds_before: f64, after: &str) {
    if before.len() + NUMBER_BYTES_MAX + after.len() > MESSAGE_BYTES_MAX {
        return;
    }
    let next = 1 - CURRENT.load(Ordering::SeqCst).min(1);
    if let Some(message) = MESSAGES.get(next) {
        message.fill(before, seconds_before, after);
        CURRENT.store(next, Ordering::SeqCst);
    }
}

/// While one lives, a stop waits: for the few steps that must not be left half done.
pub struct Hold(());

impl Hold {
    pub fn start() -> Hold {
        HOLDS.fetch_add(1, Ordering::SeqCst);
        Hold(())
    }

    /// No stop any more: the outcome is decided and is being told.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let was_last = HOLDS.fetch_sub(1, Ordering::SeqCst) == 1;
        let waiting = WAITING.load(Ordering::SeqCst);
        if was_last && waiting != 0 {
            on_stop(waiting);
        }
    }
}

/// A stop waits for a hold to end: whoever holds should hurry.
pub fn is_asked() -> bool {
    WAITING.load(Ordering::SeqCst) != 0
}

static STARTED: OnceLock<Instant> = OnceLock::new();
static EXIT_CODE_TERMINATED: AtomicU8 = AtomicU8::new(0);
static EXIT_CODE_INTERRUPTED: AtomicU8 = AtomicU8::new(0);
/// The code of the stop under way.
static EXIT_CODE: AtomicU8 = AtomicU8::new(0);
static TERMINATION_LOG: OnceLock<(CString, bool)> = OnceLock::new();
static MESSAGES: [Message; 2] = [Message::empty(), Message::empty()];
static CURRENT: AtomicUsize = AtomicUsize::new(0);
static HOLDS: AtomicU32 = AtomicU32::new(0);
/// The signal that came during a hold, or 0.
static WAITING: AtomicI32 = AtomicI32::new(0);
static IS_ENDING: AtomicBool = AtomicBool::new(false);
/// The message is written, or its time is over.
static IS_LEAVING: AtomicBool = AtomicBool::new(false);

/// A message in static memory, every byte an atomic, so that no unsafe code is needed to share it with a handler.
struct Message {
    bytes: [AtomicU8; MESSAGE_BYTES_MAX],
    /// How many bytes stand before the number.
    before: AtomicUsize,
    whole: AtomicUsize,
    milliseconds_before: AtomicU64,
}

impl Message {
    const fn empty() -> Message {
        Message {
            bytes: [const { AtomicU8::new(0) }; MESSAGE_BYTES_MAX],
            before: AtomicUsize::new(0),
            whole: AtomicUsize::new(0),
            milliseconds_before: AtomicU64::new(0),
        }
    }

    fn fill(&self, before: &str, seconds_before: f64, after: &str) {
        for (place, byte) in self.bytes.iter().zip([before, after].concat().bytes()) {
            place.store(byte, Ordering::Relaxed);
        }
        self.before.store(before.len(), Ordering::Relaxed);
        self.whole.store(before.len() + after.len(), Ordering::Relaxed);
        self.milliseconds_before.store((seconds_before * 1000.0) as u64, Ordering::Relaxed);
    }

    /// Writes the message as a line and returns its length with the line end, or 0 when nothing was prepared.
    fn copy(&self, line: &mut [u8; MESSAGE_BYTES_MAX + 1]) -> usize {
        let whole = self.whole.load(Ordering::Relaxed);
        let since = STARTED.get().map_or(Duration::ZERO, Instant::elapsed);
        let milliseconds = self.milliseconds_before.load(Ordering::Relaxed).saturating_add(since.as_millis() as u64);
        let mut left = &mut line[..];
        for (index, byte) in self.bytes.iter().take(whole).enumerate() {
            if index == self.before.load(Ordering::Relaxed) {
                // Whole numbers into a slice: this formats on the stack.
                let _ = write!(left, "{}.{}", milliseconds / 1000, milliseconds / 100 % 10);
            }
            let _ = left.write(&[byte.load(Ordering::Relaxed)]);
        }
        let _ = left.write(b"\n");
        let unused = left.len();
        if whole == 0 { 0 } else { line.len() - unused }
    }
}

extern "C" fn on_meaningless(_signal: c_int) {}

/// The time for writing is over: one of the writes waits, or all are done.
extern "C" fn on_alarm(_signal: c_int) {
    if IS_ENDING.load(Ordering::SeqCst) && !IS_LEAVING.load(Ordering::SeqCst) {
        leave();
    }
}

fn leave() -> ! {
    IS_LEAVING.store(true, Ordering::SeqCst);
    sys::kill_descendants(KILL_WAIT_MAX);
    sys::exit_now(EXIT_CODE.load(Ordering::SeqCst))
}

extern "C" fn on_stop(signal: c_int) {
    if HOLDS.load(Ordering::SeqCst) > 0 {
        let _ = WAITING.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
        return;
    }
    let code = if signal == sys::SIGINT { &EXIT_CODE_INTERRUPTED } else { &EXIT_CODE_TERMINATED };
    let code = code.load(Ordering::SeqCst);
    if IS_ENDING.swap(true, Ordering::SeqCst) {
        return;
    }
    EXIT_CODE.store(code, Ordering::SeqCst);
    sys::start_alarm(WRITE_WAIT_MAX);
    sys::kill_watched_groups();
    let mut line = [0; MESSAGE_BYTES_MAX + 1];
    let length = MESSAGES.get(CURRENT.load(Ordering::SeqCst)).map_or(0, |message| message.copy(&mut line));
    let line = line.get(..length).unwrap_or_default();
    if let (Some((path, create)), Some((_, message))) = (TERMINATION_LOG.get(), line.split_last()) {
        // A FIFO without a reader is an error then, and leaves time for stdout.
        let flags =
            sys::O_WRONLY | sys::O_TRUNC | sys::O_NOCTTY | sys::O_NONBLOCK | if *create { sys::O_CREAT } else { 0 };
        if let Ok(file) = sys::open_file(path, flags, 0o666) {
            let _ = sys::write_some(file.as_fd(), message);
        }
    }
    let _ = sys::write_some(sys::stdout(), line);
    leave()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_with_its_number_in_the_middle() {
        let message = Message::empty();
        let mut line = [0; MESSAGE_BYTES_MAX + 1];
        assert_eq!(message.copy(&mut line), 0);
        message.fill("{\"seconds\":", 3_600.25, ",\"x\":1}");
        let length = message.copy(&mut line);
        let text = std::str::from_utf8(&line[..length]).unwrap();
        assert!(text.starts_with("{\"seconds\":3600.2") && text.ends_with(",\"x\":1}\n"), "{text}");
    }

    #[test]
    fn the_longest_message_fits() {
        let message = Message::empty();
        let before = "x".repeat(MESSAGE_BYTES_MAX - NUMBER_BYTES_MAX);
        message.fill(&before, 1e12, "");
        message.fill(&before[1..], 1e12, "}");
        let mut line = [0; MESSAGE_BYTES_MAX + 1];
        let length = message.copy(&mut line);
        assert!(line[..length].ends_with(b"}\n"));
    }
}
