//! The journal: an append-only record of the run, from which a later process goes on.
//!
//! One JSON object a line, as [`Record`] has it, with the seconds of the run so far and a checksum that covers the line and
//! all before it. So a line that was changed, lost or moved is found and named; only the last line may be torn, by a crash
//! while it was written, and is cut off. It knows nothing of agents, models or tools: what a record means, they say.
//!
//! Written is not yet safe: a process that is killed leaves what it wrote to the kernel, a machine that goes down does not.
//! [`Journal::sync`] is called before anything is done that must not be done twice, and costs a disk's flush each time.
//!
//! What may surprise: a line that is whole but for its line end is kept, because the end could also have been changed
//! afterwards, and to forget such a record could mean to do something twice.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::conversation::{Fingerprint, Record, checksum};
use crate::host::sys;

/// The form of the file. A file of another one is not touched.
const VERSION: u32 = 1;
/// Bytes of a file that are read: far more than a conversation that a model can hold.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long a lock may be kept by what a killed process leaves: a child that it was just starting holds the file too, until
/// it has become the other program.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_CHECK_WAIT: Duration = Duration::from_millis(10);
/// Behind each record: its checksum, which covers everything before.
const SUM_FIELD: &str = ",\"sum\":\"";

/// An open journal, locked for this process.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Bytes of the file that hold whole records.
    length: u64,
    /// How many records they are.
    count: u64,
    /// The last record's checksum.
    sum: u64,
    is_synced: bool,
}

/// What a journal holds.
#[derive(Debug, Default)]
pub struct Past {
    /// From the start on; empty for a new run.
    pub records: Vec<Record>,
    /// The seconds that the run had taken when the last one was written.
    pub seconds: f64,
}

/// Why the journal cannot be used. Its reader is a person.
#[derive(Debug)]
pub struct JournalError {
    path: PathBuf,
    /// The record that it is about, from 1.
    record: Option<u64>,
    what: String,
    /// The run had begun, so that this is not a mistake in its configuration.
    pub is_late: bool,
}

impl fmt::Display for JournalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "THOUGHTMESH_JOURNAL: {}: ", self.path.display())?;
        if let Some(record) = self.record {
            write!(formatter, "record {record}: ")?;
        }
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for JournalError {}

impl Journal {
    /// Opens or makes the file, locks it, and reads what it holds. Nothing is written except that a torn last line is cut
    /// off. Fails when the file cannot be written, is in use, is damaged, or belongs to another configuration.
    pub fn open(path: &Path, fingerprint: &Fingerprint) -> Result<(Journal, Past), JournalError> {
        let fail = |record, what: String| JournalError { path: path.to_owned(), record, what, is_late: false };
        let cannot = |what: &str, error: &io::Error| {
            fail(None, format!("cannot be {what} ({error}), accepted: the path of a file that can be written"))
        };
        let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = opened.map_err(|error| cannot("opened", &error))?;
        let metadata = file.metadata().map_err(|error| cannot("opened", &error))?;
        if !metadata.is_file() {
            return Err(fail(None, "not a file, accepted: the path of a file that can be written".to_owned()));
        }
        match locked(&file) {
            Ok(true) => {}
            Ok(false) => return Err(fail(None, "in use by another process, which must end first".to_owned())),
            Err(error) => return Err(cannot("locked", &error)),
        }
        let mut bytes = Vec::new();
        let reading = (&mut file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        reading.map_err(|error| cannot("read", &error))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(fail(None, format!("larger than {FILE_BYTES_MAX} bytes, which no run of ours needs")));
        }
        let contents = read(&bytes).map_err(|(record, what)| fail(Some(record), what.to_owned()))?;
        drop(bytes);
        if let Some(first) = contents.records.first() {
            same_run(first, fingerprint).map_err(|(record, what)| fail(record, what))?;
        }
        let journal = Journal {
            file,
            path: path.to_owned(),
            length: contents.length,
            count: contents.records.len() as u64,
            sum: contents.sum,
            is_synced: true,
        };
        journal.mend(&contents).map_err(|error| cannot("mended at its end", &error))?;
        Ok((journal, Past { records: contents.records, seconds: contents.seconds }))
    }

    /// Cuts a torn last line off, or ends one that only lacks its end.
    fn mend(&self, contents: &Contents) -> io::Result<()> {
        match contents.end {
            LastLine::Whole => return Ok(()),
            LastLine::Torn => self.file.set_len(contents.length)?,
            LastLine::Unended => (&self.file).write_all(b"\n")?,
        }
        self.file.sync_all()
    }

    /// Writes the beginning of this process's part: the start of a new run, or that it goes on.
    pub fn begin(&mut self, fingerprint: &Fingerprint, seconds: f64) -> Result<Record, JournalError> {
        let record = match self.count {
            0 => Record::Start { version: VERSION, fingerprint: fingerprint.clone() },
            _ => Record::Resume,
        };
        let is_new = self.count == 0;
        let begun = self.append(&record, seconds).and_then(|()| self.sync()).and_then(|()| match is_new {
            true => sync_directory(&self.path).map_err(|error| self.late(format!("its directory: {error}"))),
            false => Ok(()),
        });
        // Nothing has been done yet: a journal that cannot be written is a mistake in the configuration.
        begun.map(|()| record).map_err(|error| JournalError { is_late: false, ..error })
    }

    /// Writes a record behind the others. After a failure the file ends where it did before.
    pub fn append(&mut self, record: &Record, seconds: f64) -> Result<(), JournalError> {
        let (line, sum) = line(record, seconds, self.sum);
        self.is_synced = false;
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // When this fails too, the half line is the last one, and the next process cuts it off.
            let _ = self.file.set_len(self.length);
            return Err(self.late(format!("cannot be written ({error}); the run can go on when there is room again")));
        }
        self.length += line.len() as u64;
        self.count += 1;
        self.sum = sum;
        Ok(())
    }

    /// Waits until all that was written would survive the machine. Does nothing when that is so already.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if !self.is_synced {
            self.file.sync_data().map_err(|error| self.late(format!("cannot be flushed to the disk ({error})")))?;
            self.is_synced = true;
        }
        Ok(())
    }

    fn late(&self, what: String) -> JournalError {
        JournalError { path: self.path.clone(), record: Some(self.count + 1), what, is_late: true }
    }
}

/// Takes the lock, waiting at most [`LOCK_WAIT_MAX`] for it. False when another process keeps it.
fn locked(file: &File) -> io::Result<bool> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        let is_locked = sys::lock(file.as_fd())?;
        if is_locked || Instant::now() >= deadline {
            return Ok(is_locked);
        }
        std::thread::sleep(LOCK_CHECK_WAIT);
    }
}

/// Whether a journal that begins with this record is of a run with this fingerprint. Fails with the record to blame, if
/// one is, and why.
fn same_run(first: &Record, fingerprint: &Fingerprint) -> Result<(), (Option<u64>, String)> {
    let Record::Start { version, fingerprint: theirs } = first else {
        return Err((Some(1), "not the start of a journal".to_owned()));
    };
    if *version != VERSION {
        return Err((Some(1), format!("of version {version}, accepted: version {VERSION}")));
    }
    let changes = fingerprint.changes(theirs);
    if changes.is_empty() {
        return Ok(());
    }
    let what = format!(
        "belongs to another run, what differs: {}; accepted: the configuration that it was begun with, or another file",
        changes.join(", ")
    );
    Err((None, what))
}

/// Without this, a file that was just made can be gone after a power failure, however well it was flushed itself.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent).and_then(|directory| directory.sync_all()) {
        // A directory that may be written and not read, or a file system that has no such thing.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => Ok(()),
        result => result,
    }
}

/// A record as a line with its end, and its checksum.
fn line(record: &Record, seconds: f64, sum_before: u64) -> (String, u64) {
    let mut line = serde_json::to_string(record).expect("texts, numbers and JSON values serialize");
    // The brace comes back behind what is added.
    line.pop();
    line.push_str(&format!(",\"seconds\":{seconds:.3}"));
    let sum = checksum(sum_before, line.as_bytes());
    line.push_str(&format!("{SUM_FIELD}{sum:016x}\"}}\n"));
    (line, sum)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum LastLine {
    Whole,
    Torn,
    /// Whole, but for its line end.
    Unended,
}

/// What was read of a file.
#[derive(Debug)]
struct Contents {
    records: Vec<Record>,
    seconds: f64,
    length: u64,
    sum: u64,
    end: LastLine,
}

/// The records of a file. Fails with the number of the first record that is damaged, and what is wrong with it.
fn read(bytes: &[u8]) -> Result<Contents, (u64, &'static str)> {
    const DAMAGED: &str =
        "damaged: it is not what was written; the file is left as it is, use another one to begin anew";
    let mut contents = Contents { records: Vec::new(), seconds: 0.0, length: 0, sum: 0, end: LastLine::Whole };
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        let number = contents.records.len() as u64 + 1;
        let (line, has_end) = piece.strip_suffix(b"\n").map_or((piece, false), |line| (line, true));
        match sound(line, contents.sum) {
            Some((record, seconds, sum)) => {
                if record == Record::Unknown {
                    return Err((number, "of a kind that this version does not know"));
                }
                contents.records.push(record);
                (contents.seconds, contents.sum) = (seconds, sum);
                contents.length += piece.len() as u64 + u64::from(!has_end);
                contents.end = if has_end { LastLine::Whole } else { LastLine::Unended };
            }
            // A torn line lacks something at its end; one whose end is something else was changed.
            None if !has_end && line.split_last().is_none_or(|(_, rest)| sound(rest, contents.sum).is_none()) => {
                contents.end = LastLine::Torn;
            }
            None => return Err((number, DAMAGED)),
        }
    }
    Ok(contents)
}

/// The record, the seconds and the checksum of a line that is what was written behind a record with `sum_before`.
fn sound(line: &[u8], sum_before: u64) -> Option<(Record, f64, u64)> {
    #[derive(Deserialize)]
    struct Seconds {
        seconds: f64,
    }
    let text = std::str::from_utf8(line).ok()?;
    let (body, tail) = text.split_at_checked(text.len().checked_sub(SUM_FIELD.len() + 16 + 2)?)?;
    let sum = checksum(sum_before, body.as_bytes());
    if tail != format!("{SUM_FIELD}{sum:016x}\"}}") {
        return None;
    }
    let record = serde_json::from_str(text).ok()?;
    let Seconds { seconds } = serde_json::from_str(text).ok()?;
    Some((record, seconds, sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{Edit, Part, StopReason, ToolCall, ToolResult, Turn, Usage};
    use crate::testing::TestDirectory;

    fn fingerprint() -> Fingerprint {
        let [model, objective, key_results, tools, limits] = ["1", "2", "3", "4", "5"].map(str::to_owned);
        Fingerprint { model, objective, key_results, tools, limits }
    }

    fn records() -> Vec<Record> {
        let text = "a\n\"b\" \\ \u{1F6AA} \u{0}".to_owned();
        let call =
            ToolCall { id: "1".to_owned(), name: "shell".to_owned(), arguments: serde_json::json!({"a": [1, 1.5]}) };
        vec![
            Record::Start { version: VERSION, fingerprint: fingerprint() },
            Record::ModelCallStart,
            Record::Turn(Turn {
                parts: vec![Part::Text { text: text.clone() }, Part::ToolCall(call)],
                stop_reason: StopReason::ToolCalls,
                usage: Usage { input_tokens: 7, ..Usage::default() },
            }),
            Record::ToolCallStart { call_id: "1".to_owned() },
            Record::ToolResult(ToolResult { call_id: "1".to_owned(), text: text.clone(), is_error: true }),
            Record::Resume,
            Record::User { text: text.clone() },
            Record::Rejection { call_id: None, text: text.clone(), key_results: serde_json::json!([]) },
            Record::VerificationStart,
            Record::Verification { faults: vec![None, Some(text.clone())], usage: Usage::default() },
            Record::SummaryStart,
            Record::Compaction { edits: vec![Edit::Replace { end: 2, text: text.clone() }], usage: None },
            Record::Outcome { reason: "finished".to_owned(), result: text, key_results: serde_json::json!([]) },
        ]
    }

    fn bytes() -> Vec<u8> {
        let mut sum = 0;
        let lines = records().into_iter().map(|record| {
            let (line, next) = line(&record, 1.5, sum);
            sum = next;
            line
        });
        lines.collect::<String>().into_bytes()
    }

    #[test]
    fn what_was_written_is_read() {
        let contents = read(&bytes()).unwrap();
        assert_eq!(contents.records, records());
        assert_eq!((contents.seconds, contents.end, contents.length), (1.5, LastLine::Whole, bytes().len() as u64));
    }

    #[test]
    fn a_file_cut_at_any_byte_holds_the_records_before() {
        let (bytes, all) = (bytes(), records());
        for end in 0..bytes.len() {
            let whole = bytes[..end].iter().filter(|byte| **byte == b'\n').count();
            // Whole but for its line end.
            let is_unended = bytes[end] == b'\n';
            let contents = read(&bytes[..end]).unwrap();
            assert_eq!(contents.records, all[..whole + usize::from(is_unended)], "cut at {end}");
            let is_at_border = end == 0 || bytes[end - 1] == b'\n';
            let expected = match (is_at_border, is_unended) {
                (true, _) => LastLine::Whole,
                (false, true) => LastLine::Unended,
                (false, false) => LastLine::Torn,
            };
            assert_eq!(contents.end, expected, "cut at {end}");
        }
    }

    #[test]
    fn one_changed_byte_anywhere_is_found_and_its_record_named() {
        let bytes = bytes();
        for place in 0..bytes.len() {
            let number = bytes[..place].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            for other in [bytes[place] ^ 1, bytes[place] ^ 0x20, bytes[place] ^ 0x80, b'\n', 0, b' ', b'}', b'0'] {
                let mut changed = bytes.clone();
                changed[place] = other;
                if changed != bytes {
                    let found = read(&changed).map(|contents| contents.records.len());
                    assert_eq!(found.map_err(|(number, _)| number), Err(number), "byte {place} became {other}");
                }
            }
        }
    }

    #[test]
    fn a_line_that_is_missing_doubled_or_moved_is_found() {
        let bytes = bytes();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        for index in 0..lines.len() - 1 {
            let mut without = lines.clone();
            without.remove(index);
            assert!(read(&without.concat()).is_err());
            let mut doubled = lines.clone();
            doubled.insert(index, lines[index]);
            assert!(read(&doubled.concat()).is_err());
            let mut moved = lines.clone();
            moved.swap(index, index + 1);
            assert!(read(&moved.concat()).is_err());
        }
    }

    #[test]
    fn a_journal_that_was_cut_goes_on_where_it_was_whole() {
        let bytes = bytes();
        for end in (0..bytes.len()).step_by(7) {
            let place = TestDirectory::new();
            let path = place.write("journal", &bytes[..end]);
            let (mut journal, past) = Journal::open(&path, &fingerprint()).unwrap();
            journal.begin(&fingerprint(), 2.0).unwrap();
            journal.append(&Record::ModelCallStart, 3.0).unwrap();
            drop(journal);
            let (_, again) = Journal::open(&path, &fingerprint()).unwrap();
            assert_eq!(again.records.len(), past.records.len() + 2);
            assert!(again.records.starts_with(&past.records));
            assert_eq!(again.seconds, 3.0);
        }
    }

    #[test]
    fn a_journal_has_one_writer() {
        let place = TestDirectory::new();
        let first = Journal::open(&place.join("journal"), &fingerprint()).unwrap();
        let error = Journal::open(&place.join("journal"), &fingerprint()).unwrap_err();
        assert!(error.to_string().contains("in use by another process") && !error.is_late, "{error}");
        drop(first);
        assert!(Journal::open(&place.join("journal"), &fingerprint()).is_ok());
    }

    #[test]
    fn a_lock_that_is_about_to_end_is_waited_for() {
        let place = TestDirectory::new();
        let first = Journal::open(&place.join("journal"), &fingerprint()).unwrap();
        let ending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
        });
        assert!(Journal::open(&place.join("journal"), &fingerprint()).is_ok());
        ending.join().unwrap();
    }

    #[test]
    fn a_journal_of_another_configuration_is_left_alone() {
        let place = TestDirectory::new();
        let path = place.write("journal", bytes());
        let other = Fingerprint { tools: "x".to_owned(), limits: "y".to_owned(), ..fingerprint() };
        let error = Journal::open(&path, &other).unwrap_err().to_string();
        assert!(error.contains("what differs: tools, limits;"), "{error}");
        assert_eq!(std::fs::read(path).unwrap(), bytes());
    }

    #[test]
    fn a_file_that_is_no_journal_is_left_alone() {
        let foreign = line(&Record::ModelCallStart, 1.0, 0).0;
        let newer = line(&Record::Start { version: 2, fingerprint: fingerprint() }, 1.0, 0).0;
        for (content, what) in [
            ("some text\n", "record 1: damaged"),
            ("{\"record\":\"turn\",\"parts\":[]}\n", "record 1: damaged"),
            (foreign.as_str(), "record 1: not the start"),
            (newer.as_str(), "record 1: of version 2"),
        ] {
            let place = TestDirectory::new();
            let path = place.write("journal", content);
            let error = Journal::open(&path, &fingerprint()).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert_eq!(std::fs::read_to_string(path).unwrap(), content);
        }
    }
}
