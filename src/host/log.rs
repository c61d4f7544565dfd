//! The log: env_logger set up once, one line an event, to stderr.
//!
//! It knows nothing of what is logged. Surprising: a line is dropped rather than waited for. Whoever reads our stderr may
//! have stopped reading, and a full pipe must not hold the run.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use env_logger::{Builder, Target};
use log::{LevelFilter, Record};
use serde_json::json;

use super::sys;

/// How long a line may wait for a reader; after that lines are dropped until there is one again.
const READER_WAIT: Duration = Duration::from_secs(2);
/// A pipe that can be written at all takes this much at once (PIPE_BUF, pipe(7), read 2026-11).
const PIECE_BYTES: usize = 4096;

/// Text or JSON, one object a line.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Text,
    Json,
}

/// Starts the log. `filter` is what `RUST_LOG` says; `mask` takes out of a line what must not leave.
pub fn start(form: Form, filter: Option<&str>, mask: impl Fn(&str) -> String + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info);
    if let Some(filter) = filter {
        builder.parse_filters(&understood(filter));
    }
    let format = move |out: &mut env_logger::fmt::Formatter, record: &Record<'_>| {
        let message = mask(&record.args().to_string());
        let time = timestamp(SystemTime::now());
        match form {
            Form::Text => writeln!(out, "{time} {:5} {}", record.level(), on_one_line(&message)),
            Form::Json => {
                let level = record.level().as_str().to_ascii_lowercase();
                writeln!(
                    out,
                    "{}",
                    json!({"time": time, "level": level, "message": message, "target": record.target()})
                )
            }
        }
    };
    builder.format(format).target(Target::Pipe(Box::new(Patient::new(io::stderr()))));
    // A second start, as in tests, keeps the first log.
    let _ = builder.try_init();
}

/// Writes the whole text, waiting at most [`READER_WAIT`] for a reader. Fails with what the kernel says, or `TimedOut`.
pub fn write_patiently(out: &mut (impl Write + AsFd), text: &[u8]) -> io::Result<()> {
    for piece in text.chunks(PIECE_BYTES) {
        if !sys::is_writable(out.as_fd(), READER_WAIT)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        out.write_all(piece)?;
    }
    out.flush()
}

/// A writer that gives up on a reader who does not read, and tries again without waiting.
struct Patient<W> {
    out: W,
    dropped_lines: u64,
}

impl<W: Write + AsFd> Patient<W> {
    fn new(out: W) -> Patient<W> {
        Patient { out, dropped_lines: 0 }
    }
}

impl<W: Write + AsFd> Write for Patient<W> {
    /// One call is one line. It never fails: there is nowhere to say so.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.dropped_lines > 0 {
            if !sys::is_writable(self.out.as_fd(), Duration::ZERO).unwrap_or(false) {
                self.dropped_lines += 1;
                return Ok(line.len());
            }
            let note = format!("({} lines of the log are missing here: nobody read them)\n", self.dropped_lines);
            self.dropped_lines = 0;
            let _ = write_patiently(&mut self.out, note.as_bytes());
        }
        if write_patiently(&mut self.out, line).is_err() {
            self.dropped_lines += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The directives that env_logger takes (`level`, `target`, `target=level`): of any other it complains by printing to stderr,
/// which is neither a line of the log nor sure to succeed.
fn understood(filter: &str) -> String {
    let is_level = |word: &str| word.trim().parse::<LevelFilter>().is_ok();
    let is_target = |word: &str| {
        !word.trim().is_empty()
            && word.trim().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
    };
    let directives = filter.split(',').filter(|directive| match directive.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_target(directive),
    });
    directives.collect::<Vec<_>>().join(",")
}

/// Control characters would let a text from outside pass for a line of ours.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// RFC 3339 in UTC with milliseconds, as `2026-11-22T16:30:00.000Z`.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March, in eras of 400 years, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_times_as_the_standard_has_them() {
        // GNU date: date -u -d @951782399.25 and so on.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_400, "2000-02-29T00:00:00.250Z"),
            (951_868_800, "2000-03-01T00:00:00.250Z"),
            (1_798_761_599, "2026-12-31T23:59:59.250Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(250);
            assert_eq!(timestamp(time), text);
        }
    }

    #[test]
    fn directives_that_are_none_are_left_out() {
        assert_eq!(understood("!!bad==,debug,a::b=warn,x=loud,y/re"), "debug,a::b=warn");
    }

    #[test]
    fn a_text_from_outside_stays_on_its_line() {
        assert_eq!(on_one_line("a\nERROR b\u{1b}[2J"), "a\\nERROR b\\u{1b}[2J");
    }
}
