//! The file tools: read, write, edit, list and search inside the workspace.
//!
//! Where a path may lead is decided by `host/workspace.rs`; looking through many files is in `search.rs`. Whatever is read
//! is read in pieces up to a named limit, so that a file of 10 GB costs no more than a small one, and whatever is left out
//! is told together with how to get it.
//!
//! What may surprise: `edit_file` counts places that overlap as more than one (`aa` in `aaa`), because it could not say
//! which of them was meant.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::ToolError;
use super::excerpt::{Lines, beginning, excerpt};
use super::schema;
use super::search;
use crate::conversation::ToolSpec;
use crate::host::workspace::{Entry, Kind, Workspace, WorkspaceError, Written, shown};
use crate::secret::Secrets;

/// How many lines `read_file` gives when it is not told.
const READ_LINES_DEFAULT: u64 = 2_000;
/// How far into a file `read_file` looks for the lines that it was asked for.
const READ_SCAN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The size of a file that `edit_file` changes, before and after: it is in memory as a whole.
const EDIT_FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many names `list_directory` reads, and how many it shows.
const LIST_ENTRIES_MAX: usize = 100_000;
const LIST_LINES_MAX: usize = 1_000;
/// How much of a file's beginning tells whether it is text.
pub const SNIFF_BYTES: usize = 8 * 1024;
/// How many bytes of a binary file are shown.
const BINARY_BYTES_SHOWN: usize = 16;
/// Room in a result for the lines about what was left out.
pub const NOTES_BYTES_MAX: usize = 400;

/// One of the tools for files. Together they are called `filesystem`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FileTool {
    Read,
    Write,
    Edit,
    List,
    Find,
    Search,
}

impl FileTool {
    pub const ALL: [FileTool; 6] =
        [FileTool::Read, FileTool::Write, FileTool::Edit, FileTool::List, FileTool::Find, FileTool::Search];

    pub fn from_name(name: &str) -> Option<FileTool> {
        FileTool::ALL.into_iter().find(|tool| tool.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            FileTool::Read => "read_file",
            FileTool::Write => "write_file",
            FileTool::Edit => "edit_file",
            FileTool::List => "list_directory",
            FileTool::Find => "find_files",
            FileTool::Search => "search_text",
        }
    }

    /// Whether it changes nothing.
    pub fn is_read_only(self) -> bool {
        match self {
            FileTool::Read | FileTool::List | FileTool::Find | FileTool::Search => true,
            FileTool::Write | FileTool::Edit => false,
        }
    }

    /// The tool as the model sees it.
    pub fn spec(self) -> ToolSpec {
        let (description, required, properties) = match self {
            FileTool::Read => read_spec(),
            FileTool::Write => write_spec(),
            FileTool::Edit => edit_spec(),
            FileTool::List => list_spec(),
            FileTool::Find => search::find_spec(),
            FileTool::Search => search::search_spec(),
        };
        let parameters = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        ToolSpec { name: self.name().to_owned(), description: description.to_owned(), parameters }
    }

    /// Runs the tool. The result is at most `output_bytes_max` long and says what was left out. Secrets are masked before
    /// anything is cut: half of one would not be recognized.
    pub fn run(
        self,
        workspace: &Workspace,
        arguments: &Map<String, Value>,
        output_bytes_max: usize,
        secrets: &Secrets,
    ) -> Result<String, ToolError> {
        let text = match self {
            FileTool::Read => read_file(workspace, arguments, output_bytes_max, secrets),
            FileTool::Write => write_file(workspace, arguments),
            FileTool::Edit => edit_file(workspace, arguments),
            FileTool::List => list_directory(workspace, arguments, output_bytes_max),
            FileTool::Find => search::find_files(workspace, arguments, output_bytes_max),
            FileTool::Search => search::search_text(workspace, arguments, output_bytes_max, secrets),
        }?;
        Ok(excerpt(&secrets.mask(&text), output_bytes_max, ""))
    }
}

/// What a path did wrong becomes what the model reads.
impl From<WorkspaceError> for ToolError {
    fn from(error: WorkspaceError) -> ToolError {
        let text = error.to_string();
        match error {
            WorkspaceError::Outside { .. }
            | WorkspaceError::LinkOutside { .. }
            | WorkspaceError::Link { .. }
            | WorkspaceError::KernelFile { .. } => ToolError::Refused(text),
            WorkspaceError::Invalid { .. } => ToolError::Arguments(text),
            WorkspaceError::Root { .. }
            | WorkspaceError::NotFound { .. }
            | WorkspaceError::WrongKind { .. }
            | WorkspaceError::Failed { .. } => ToolError::Failed(text),
        }
    }
}

/// Description, required properties, properties.
pub type SpecParts = (&'static str, Value, Value);

fn read_spec() -> SpecParts {
    (
        "Read a text file of the workspace. Gives whole lines, as they are; long files in parts, saying how to continue.",
        json!(["path"]),
        json!({
            "path": {"type": "string", "description": "The file, relative to the workspace."},
            "offset": {"type": "integer", "minimum": 1, "description": "The first line to read, counted from 1. Default 1."},
            "limit": {"type": "integer", "minimum": 1, "description": "How many lines to read. Default 2000."},
        }),
    )
}

fn write_spec() -> SpecParts {
    (
        "Write a file of the workspace: make it, or replace its whole content. Missing directories are made.",
        json!(["path", "content"]),
        json!({
            "path": {"type": "string", "description": "The file, relative to the workspace."},
            "content": {"type": "string", "description": "The whole new content."},
        }),
    )
}

fn edit_spec() -> SpecParts {
    (
        "Replace a piece of text in a file of the workspace. old_text must be in the file exactly as given, with its spaces \
         and line ends, and only once: include lines around it until it is unique, or set replace_all.",
        json!(["path", "old_text", "new_text"]),
        json!({
            "path": {"type": "string", "description": "The file, relative to the workspace."},
            "old_text": {"type": "string", "minLength": 1, "description": "The text to replace."},
            "new_text": {"type": "string", "description": "What to put in its place; empty to remove it."},
            "replace_all": {"type": "boolean", "description": "Replace it wherever it is. Default false."},
        }),
    )
}

fn list_spec() -> SpecParts {
    (
        "List the names in a directory of the workspace: directories end in /, files come with their size.",
        json!([]),
        json!({
            "path": {"type": "string", "description": "The directory, relative to the workspace. Default: the workspace."},
        }),
    )
}

fn read_file(
    workspace: &Workspace,
    arguments: &Map<String, Value>,
    output_bytes_max: usize,
    secrets: &Secrets,
) -> Result<String, ToolError> {
    let path = Path::new(schema::text(arguments, "path")?);
    let first_line = schema::positive(arguments, "offset")?.unwrap_or(1);
    let lines_max = schema::positive(arguments, "limit")?.unwrap_or(READ_LINES_DEFAULT);
    let (mut reader, size) = open_text(workspace, path)?;
    let failed = |error| ToolError::Failed(format!("{}: cannot read it: {error}", shown(path)));
    if let Some(description) = binary_description(reader.fill_buf().map_err(failed)?, size) {
        return Ok(format!("[{}: {description}]", shown(path)));
    }
    if size == 0 {
        return Ok(format!("[{}: the file is empty]", shown(path)));
    }
    let mut scanner = Scanner { reader: reader.take(READ_SCAN_BYTES_MAX), read_bytes: 0 };
    for line in 1..first_line {
        if scanner.line(&mut Vec::new(), 0).map_err(failed)? == 0 {
            return Err(beyond_the_end(path, first_line, line - 1, scanner.read_bytes < READ_SCAN_BYTES_MAX));
        }
    }
    let window = scanner.window(lines_max, output_bytes_max.saturating_sub(NOTES_BYTES_MAX)).map_err(failed)?;
    if window.lines == 0 {
        return Err(beyond_the_end(path, first_line, first_line - 1, scanner.read_bytes < READ_SCAN_BYTES_MAX));
    }
    Ok(window.text(first_line, size.saturating_sub(scanner.read_bytes), secrets))
}

fn beyond_the_end(path: &Path, offset: u64, lines: u64, is_whole: bool) -> ToolError {
    let path = shown(path);
    ToolError::Failed(match is_whole {
        true => format!("{path}: has {lines} lines, line {offset} does not exist, use a smaller offset"),
        false => format!(
            "{path}: line {offset} is not in the first {} MiB, which is as far as read_file looks",
            READ_SCAN_BYTES_MAX / 1024 / 1024
        ),
    })
}

/// Opens a file and tells its size. Its reader's first buffer is enough for [`binary_description`].
pub fn open_text(workspace: &Workspace, path: &Path) -> Result<(BufReader<File>, u64), ToolError> {
    let file = workspace.open_file(path)?;
    let size = file.metadata().map(|metadata| metadata.len());
    let size = size.map_err(|error| ToolError::Failed(format!("{}: cannot look at it: {error}", shown(path))))?;
    Ok((BufReader::with_capacity(8 * SNIFF_BYTES, file), size))
}

/// What a file that begins with `bytes` is, if it is not text.
pub fn binary_description(bytes: &[u8], size: u64) -> Option<String> {
    let beginning = bytes.get(..SNIFF_BYTES).unwrap_or(bytes);
    if matches!(beginning, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Some(format!("text in UTF-16, {size} bytes, not shown; convert it to UTF-8 first"));
    }
    // Checking is much faster than replacing.
    let text = std::str::from_utf8(beginning).map_or_else(|_| String::from_utf8_lossy(beginning), Cow::Borrowed);
    let strange = text.matches('\u{fffd}').count();
    if !beginning.contains(&0) && strange * 10 <= beginning.len() {
        return None;
    }
    let hex: Vec<String> = beginning.iter().take(BINARY_BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
    Some(format!("a binary file, {size} bytes, not shown; it begins with the bytes {}", hex.join(" ")))
}

/// Reads lines and counts bytes.
struct Scanner<R> {
    reader: R,
    read_bytes: u64,
}

/// Some lines of a file, as far as they fitted.
struct Window {
    bytes: Vec<u8>,
    lines: u64,
    /// The last line was longer than what fits; this long.
    long_line_bytes: Option<u64>,
}

impl<R: BufRead> Scanner<R> {
    fn line(&mut self, kept: &mut Vec<u8>, bytes_max: usize) -> io::Result<u64> {
        let length = read_line(&mut self.reader, kept, bytes_max)?;
        self.read_bytes += length;
        Ok(length)
    }

    /// Reads lines until there are `lines_max`, the next one does not fit any more, or the end. A first line that does not
    /// fit is cut.
    fn window(&mut self, lines_max: u64, bytes_max: usize) -> io::Result<Window> {
        let mut window = Window { bytes: Vec::new(), lines: 0, long_line_bytes: None };
        let mut line = Vec::new();
        while window.lines < lines_max {
            line.clear();
            let before = self.read_bytes;
            let length = self.line(&mut line, bytes_max.saturating_sub(window.bytes.len()).max(1))?;
            if length == 0 {
                break;
            }
            if length > line.len() as u64 || window.bytes.len() + line.len() > bytes_max {
                if window.lines > 0 {
                    // Not part of the window: its bytes follow.
                    self.read_bytes = before;
                    break;
                }
                window.long_line_bytes = Some(length);
            }
            window.lines += 1;
            window.bytes.append(&mut line);
            if window.long_line_bytes.is_some() {
                break;
            }
        }
        Ok(window)
    }
}

/// Reads the next line, its end included, keeps at most `bytes_max` of it and returns its length; 0 at the end.
pub fn read_line(reader: &mut impl BufRead, kept: &mut Vec<u8>, bytes_max: usize) -> io::Result<u64> {
    let mut length = 0;
    loop {
        let available = reader.fill_buf()?;
        let end = available.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let count = end.unwrap_or(available.len());
        let room = bytes_max.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(available.get(..room).unwrap_or_default());
        reader.consume(count);
        length += count as u64;
        if end.is_some() || count == 0 {
            return Ok(length);
        }
    }
}

impl Window {
    fn text(mut self, first_line: u64, following_bytes: u64, secrets: &Secrets) -> String {
        match std::str::from_utf8(&self.bytes) {
            // Cut within a character.
            Err(error) if error.error_len().is_none() => self.bytes.truncate(error.valid_up_to()),
            _ => {}
        }
        let whole = self.bytes.len();
        let mut notes = Vec::new();
        let mut text = String::from_utf8(self.bytes).unwrap_or_else(|error| {
            notes.push("[the file is not UTF-8; what could not be read is shown as \u{fffd}]".to_owned());
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        if let Some(length) = self.long_line_bytes {
            text = secrets.mask_sides(&text, "").0;
            notes.push(format!(
                "[line {first_line} is {length} bytes long, its first {whole} are shown; search_text shows what is around a match]"
            ));
        }
        let last_line = first_line + self.lines - 1;
        if following_bytes > 0 {
            notes.push(format!(
                "[lines {first_line} to {last_line} shown, {following_bytes} bytes follow; continue with offset {}]",
                last_line + 1
            ));
        }
        if !notes.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text + &notes.join("\n")
    }
}

fn write_file(workspace: &Workspace, arguments: &Map<String, Value>) -> Result<String, ToolError> {
    let path = Path::new(schema::text(arguments, "path")?);
    let content = schema::text(arguments, "content")?;
    let what = match workspace.write_file(path, content.as_bytes())? {
        Written::New => "a new file",
        Written::Replaced => "replacing what was there",
    };
    Ok(format!("wrote {} bytes to {}, {what}", content.len(), shown(path)))
}

fn edit_file(workspace: &Workspace, arguments: &Map<String, Value>) -> Result<String, ToolError> {
    let path = Path::new(schema::text(arguments, "path")?);
    let old_text = schema::text(arguments, "old_text")?;
    let new_text = schema::text(arguments, "new_text")?;
    let replaces_all = schema::flag(arguments, "replace_all")?.unwrap_or(false);
    if old_text.is_empty() {
        return Err(ToolError::Arguments("old_text: is empty, give the text to replace".to_owned()));
    }
    if old_text == new_text {
        return Err(ToolError::Arguments("new_text: is the same as old_text, nothing would change".to_owned()));
    }
    let content = read_whole(workspace, path)?;
    let (Some(first), Some(last)) = (content.find(old_text), content.rfind(old_text)) else {
        return Err(ToolError::Failed(not_found(path, &content, old_text)));
    };
    let count = content.matches(old_text).count();
    if first != last && !replaces_all {
        let (first, last) = (line_of(&content, first), line_of(&content, last));
        return Err(ToolError::Failed(format!(
            "{}: old_text is there more than once ({count} times counted from the start), first in line {first} and last in line {last}, \
             include more of the text around it or set replace_all",
            shown(path)
        )));
    }
    let size_after = content.len() - count * old_text.len() + count.saturating_mul(new_text.len());
    if size_after > EDIT_FILE_BYTES_MAX {
        return Err(ToolError::Refused(too_large(path, size_after as u64)));
    }
    workspace.write_file(path, content.replace(old_text, new_text).as_bytes())?;
    let places = if count == 1 { "1 place".to_owned() } else { format!("{count} places") };
    Ok(format!("replaced {places} in {}, the first in line {}", shown(path), line_of(&content, first)))
}

/// All of a file that is to be changed.
fn read_whole(workspace: &Workspace, path: &Path) -> Result<String, ToolError> {
    let (reader, size) = open_text(workspace, path)?;
    let mut bytes = Vec::new();
    // Not by `size`: it may grow meanwhile.
    let read = reader.take(EDIT_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| ToolError::Failed(format!("{}: cannot read it: {error}", shown(path))))?;
    if bytes.len() > EDIT_FILE_BYTES_MAX {
        return Err(ToolError::Refused(too_large(path, size)));
    }
    String::from_utf8(bytes).map_err(|_| {
        ToolError::Refused(format!("{}: is not UTF-8 text, which is all that edit_file changes", shown(path)))
    })
}

fn too_large(path: &Path, size: u64) -> String {
    let limit = EDIT_FILE_BYTES_MAX / 1024 / 1024;
    format!("{}: {size} bytes are more than the {limit} MiB that edit_file works on", shown(path))
}

/// What is known about a text that is not there.
fn not_found(path: &Path, content: &str, old_text: &str) -> String {
    let path = shown(path);
    if content.contains("\r\n") && content.replace("\r\n", "\n").contains(&old_text.replace("\r\n", "\n")) {
        return format!("{path}: old_text is there with other line ends, lines of this file end in \\r\\n");
    }
    let first_line = old_text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let excerpt = beginning(first_line, 100);
    match content.find(first_line).filter(|_| !first_line.is_empty()) {
        Some(at) => format!(
            "{path}: old_text is not there as given, but its first line is, in line {}, \
             read the file there and compare spaces and line ends",
            line_of(content, at)
        ),
        None => format!("{path}: old_text is not there, not even its first line `{excerpt}`, read the file again"),
    }
}

/// The number of the line that byte `at` is in, counted from 1.
fn line_of(content: &str, at: usize) -> usize {
    content.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn list_directory(
    workspace: &Workspace,
    arguments: &Map<String, Value>,
    output_bytes_max: usize,
) -> Result<String, ToolError> {
    let path = Path::new(schema::optional_text(arguments, "path")?.unwrap_or("."));
    let directory = workspace.open_directory(path)?;
    let mut found = directory.entries(LIST_ENTRIES_MAX)?;
    found.sort();
    let mut lines = Lines::new(output_bytes_max.saturating_sub(NOTES_BYTES_MAX), LIST_LINES_MAX);
    for entry in &found.entries {
        if !lines.has_room() {
            lines.skip();
            continue;
        }
        let size = (entry.kind == Kind::File).then(|| directory.metadata(&entry.name).map_or(0, |found| found.bytes));
        lines.push(&listed(entry, size));
    }
    if found.entries.is_empty() {
        return Ok(format!("[{}: the directory is empty]", shown(path)));
    }
    let mut notes = Vec::new();
    if lines.skipped > 0 {
        notes.push(format!(
            "[{} more names not shown; find_files with a pattern such as `a*` shows some of them]",
            lines.skipped
        ));
    }
    if found.has_more {
        notes.push(format!("[more than {LIST_ENTRIES_MAX} names; the others were not looked at]"));
    }
    Ok(lines.text_with(&notes))
}

fn listed(entry: &Entry, size: Option<u64>) -> String {
    let name = shown(Path::new(&entry.name));
    match (entry.kind, size) {
        (Kind::Directory, _) => format!("{name}/"),
        (_, Some(size)) => format!("{name} ({size} bytes)"),
        (kind, None) => format!("{name} ({kind})"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::{Random, TestDirectory, check_property};

    const OUTPUT_BYTES_MAX: usize = 10_000;

    /// A workspace, and calls of tools in it.
    struct Fixture {
        place: TestDirectory,
        workspace: Workspace,
    }

    impl Fixture {
        fn new() -> Fixture {
            let place = TestDirectory::new();
            let workspace = Workspace::open(place.path()).unwrap();
            Fixture { place, workspace }
        }

        fn with(name: &str, content: impl AsRef<[u8]>) -> Fixture {
            let fixture = Fixture::new();
            fixture.place.write(name, content);
            fixture
        }

        fn run(&self, tool: FileTool, arguments: Value) -> Result<String, ToolError> {
            let arguments = arguments.as_object().unwrap();
            assert_eq!(schema::mistakes(&tool.spec().parameters, arguments), Vec::<String>::new());
            tool.run(&self.workspace, arguments, OUTPUT_BYTES_MAX, &Secrets::default())
        }

        fn ok(&self, tool: FileTool, arguments: Value) -> String {
            self.run(tool, arguments).unwrap()
        }

        fn error(&self, tool: FileTool, arguments: Value) -> String {
            self.run(tool, arguments).unwrap_err().to_string()
        }

        fn content(&self, name: &str) -> String {
            fs::read_to_string(self.place.join(name)).unwrap()
        }
    }

    fn numbered_lines(count: usize) -> String {
        (1..=count).map(|number| format!("line {number}\n")).collect()
    }

    #[test]
    fn every_tool_is_found_by_its_name_and_described() {
        for tool in FileTool::ALL {
            assert_eq!(FileTool::from_name(tool.name()), Some(tool));
            let spec = tool.spec();
            assert_eq!(spec.parameters["type"], "object");
            assert!(spec.parameters["properties"]["path"]["description"].is_string());
            for required in spec.parameters["required"].as_array().unwrap() {
                assert!(spec.parameters["properties"][required.as_str().unwrap()].is_object());
            }
        }
        assert_eq!(FileTool::from_name("shell"), None);
    }

    #[test]
    fn a_file_is_read_as_it_is() {
        for content in ["one\ntwo\n", "no end", "\r\nwindows\r\n", "\n\n", "é€🙂"] {
            let fixture = Fixture::with("file", content);
            assert_eq!(fixture.ok(FileTool::Read, json!({"path": "file"})), content);
        }
        let fixture = Fixture::with("empty", "");
        assert_eq!(fixture.ok(FileTool::Read, json!({"path": "empty"})), "[empty: the file is empty]");
    }

    #[test]
    fn some_lines_are_read_and_the_rest_is_told() {
        let fixture = Fixture::with("file", numbered_lines(10));
        let text = fixture.ok(FileTool::Read, json!({"path": "file", "offset": 3, "limit": 2.0}));
        assert_eq!(text, "line 3\nline 4\n[lines 3 to 4 shown, 43 bytes follow; continue with offset 5]");
        let text = fixture.ok(FileTool::Read, json!({"path": "file", "offset": 10, "limit": null}));
        assert_eq!(text, "line 10\n");
        let error = fixture.error(FileTool::Read, json!({"path": "file", "offset": 11}));
        assert_eq!(error, "failed: file: has 10 lines, line 11 does not exist, use a smaller offset");
        assert!(fixture.error(FileTool::Read, json!({"path": "file", "offset": 500})).contains("has 10 lines"));
    }

    #[test]
    fn following_the_offsets_gives_the_whole_file() {
        check_property(60, |random: &mut Random| {
            let lines = random.below(400);
            let content: String =
                (0..lines).map(|_| "é€x ".repeat(random.below(30)) + random.pick(&["\n", "\n", "\r\n"])).collect();
            let fixture = Fixture::with("file", &content);
            let output_bytes_max = 1_000 + random.below(4_000);
            let (mut read, mut offset) = (String::new(), 1);
            while read.len() < content.len() {
                let arguments = json!({"path": "file", "offset": offset});
                let text = FileTool::Read
                    .run(&fixture.workspace, arguments.as_object().unwrap(), output_bytes_max, &Secrets::default())
                    .unwrap();
                assert!(text.len() <= output_bytes_max);
                let Some((part, note)) = text.rsplit_once("[lines ") else {
                    read.push_str(&text);
                    break;
                };
                read.push_str(part);
                offset = note.trim_end_matches(']').rsplit_once(' ').unwrap().1.parse().unwrap();
            }
            assert_eq!(read, content);
        });
    }

    #[test]
    fn a_line_longer_than_the_result_is_cut_between_characters() {
        let fixture = Fixture::with("file", "é".repeat(50_000) + "\nnext\n");
        let text = fixture.ok(FileTool::Read, json!({"path": "file"}));
        assert!(text.len() <= OUTPUT_BYTES_MAX && !text.contains('\u{fffd}'));
        assert!(text.contains("[line 1 is 100001 bytes long, its first 9600 are shown;"), "{text}");
        assert!(text.ends_with("[lines 1 to 1 shown, 5 bytes follow; continue with offset 2]"), "{text}");
        assert_eq!(fixture.ok(FileTool::Read, json!({"path": "file", "offset": 2})), "next\n");
    }

    #[test]
    fn a_huge_sparse_file_is_read_in_a_bounded_window() {
        let fixture = Fixture::with("text", numbered_lines(5_000));
        File::options().write(true).open(fixture.place.join("text")).unwrap().set_len(10 << 30).unwrap();
        let text = fixture.ok(FileTool::Read, json!({"path": "text", "limit": 1}));
        assert!(text.starts_with("line 1\n[lines 1 to 1 shown, 10737418233 bytes follow;"), "{text}");
        let error = fixture.error(FileTool::Read, json!({"path": "text", "offset": 1_000_000}));
        assert!(error.ends_with("is not in the first 64 MiB, which is as far as read_file looks"), "{error}");
        let error = fixture.error(FileTool::Edit, json!({"path": "text", "old_text": "line 1", "new_text": ""}));
        assert!(error.contains("10737418240 bytes are more than the 8 MiB"), "{error}");
        File::create(fixture.place.join("holes")).unwrap().set_len(10 << 30).unwrap();
        let text = fixture.ok(FileTool::Read, json!({"path": "holes"}));
        assert!(text.starts_with("[holes: a binary file, 10737418240 bytes, not shown;"), "{text}");
    }

    #[test]
    fn binary_files_are_described() {
        let fixture = Fixture::with("program", b"\x7fELF\0\0");
        let expected = "[program: a binary file, 6 bytes, not shown; it begins with the bytes 7f 45 4c 46 00 00]";
        assert_eq!(fixture.ok(FileTool::Read, json!({"path": "program"})), expected);
        fixture.place.write("wide", b"\xff\xfea\0");
        assert!(fixture.ok(FileTool::Read, json!({"path": "wide"})).contains("UTF-16"));
        fixture.place.write("packed", [0x1f, 0x8b, 0xf3, 0xc9, 0xe2, 0xff, 0x91]);
        assert!(fixture.ok(FileTool::Read, json!({"path": "packed"})).contains("a binary file"));
    }

    #[test]
    fn text_in_an_old_encoding_is_shown_with_a_note_and_not_edited() {
        let fixture = Fixture::with("latin", b"one caf\xe9 in the text\n");
        let text = fixture.ok(FileTool::Read, json!({"path": "latin"}));
        assert!(text.starts_with("one caf\u{fffd} in the text\n[the file is not UTF-8;"), "{text}");
        let error = fixture.error(FileTool::Edit, json!({"path": "latin", "old_text": "one", "new_text": "two"}));
        assert!(error.starts_with("refused: latin: is not UTF-8 text"), "{error}");
    }

    #[test]
    fn paths_that_lead_out_are_refused_by_every_tool() {
        let fixture = Fixture::with("inside", "x");
        symlink("/etc", fixture.place.join("link")).unwrap();
        for tool in FileTool::ALL {
            for path in ["../x", "/etc/passwd", "link/passwd", "link"] {
                let arguments = json!({
                    "path": path, "pattern": "root", "content": "x", "old_text": "root", "new_text": "x"
                });
                let result =
                    tool.run(&fixture.workspace, arguments.as_object().unwrap(), OUTPUT_BYTES_MAX, &Secrets::default());
                assert!(matches!(result, Err(ToolError::Refused(_))), "{tool:?} {path} {result:?}");
            }
        }
    }

    #[test]
    fn a_file_is_written_and_told() {
        let fixture = Fixture::new();
        let told = fixture.ok(FileTool::Write, json!({"path": "a/b.txt", "content": "hé"}));
        assert_eq!(told, "wrote 3 bytes to a/b.txt, a new file");
        let told = fixture.ok(FileTool::Write, json!({"path": "a/b.txt", "content": ""}));
        assert_eq!(told, "wrote 0 bytes to a/b.txt, replacing what was there");
        assert_eq!(fixture.content("a/b.txt"), "");
    }

    #[test]
    fn an_edit_replaces_the_one_place() {
        let fixture = Fixture::with("file", "one\ntwo\nthree\n");
        let told = fixture.ok(FileTool::Edit, json!({"path": "file", "old_text": "two\n", "new_text": "2\n"}));
        assert_eq!(told, "replaced 1 place in file, the first in line 2");
        assert_eq!(fixture.content("file"), "one\n2\nthree\n");
    }

    #[test]
    fn an_edit_of_several_places_needs_to_be_asked_for() {
        let fixture = Fixture::with("file", "a x\nb x\nc x\n");
        let error = fixture.error(FileTool::Edit, json!({"path": "file", "old_text": "x", "new_text": "y"}));
        assert!(
            error.contains("more than once (3 times counted from the start), first in line 1 and last in line 3"),
            "{error}"
        );
        assert_eq!(fixture.content("file"), "a x\nb x\nc x\n");
        let arguments = json!({"path": "file", "old_text": "x", "new_text": "y", "replace_all": true});
        assert_eq!(fixture.ok(FileTool::Edit, arguments), "replaced 3 places in file, the first in line 1");
        assert_eq!(fixture.content("file"), "a y\nb y\nc y\n");
        let overlapping = Fixture::with("file", "aaa");
        assert!(
            overlapping
                .error(FileTool::Edit, json!({"path": "file", "old_text": "aa", "new_text": ""}))
                .contains("more than once")
        );
    }

    #[test]
    fn an_edit_says_what_it_did_not_find() {
        let fixture = Fixture::with("file", "fn main() {\n    body();\n}\n");
        let edit = |old: &str| fixture.error(FileTool::Edit, json!({"path": "file", "old_text": old, "new_text": "x"}));
        assert!(edit("fn main() {\n  body();").contains("its first line is, in line 1"));
        assert!(edit("  \n  body();  \n").contains("its first line is, in line 2"));
        assert!(edit("fn other()\n").contains("not even its first line `fn other()`"));
        assert!(edit(&"z".repeat(100_000)).len() < 400);
        let windows = Fixture::with("file", "one\r\ntwo\r\n");
        let error = windows.error(FileTool::Edit, json!({"path": "file", "old_text": "one\ntwo", "new_text": "x"}));
        assert!(error.ends_with("lines of this file end in \\r\\n"), "{error}");
    }

    #[test]
    fn an_edit_that_makes_no_sense_is_refused() {
        let fixture = Fixture::with("file", "text");
        let edit = |old: &str, new: &str| {
            let arguments = json!({"path": "file", "old_text": old, "new_text": new});
            FileTool::Edit.run(
                &fixture.workspace,
                arguments.as_object().unwrap(),
                OUTPUT_BYTES_MAX,
                &Secrets::default(),
            )
        };
        assert!(matches!(edit("", "x"), Err(ToolError::Arguments(_))));
        assert!(matches!(edit("text", "text"), Err(ToolError::Arguments(_))));
        assert!(
            fixture
                .error(FileTool::Edit, json!({"path": "none", "old_text": "a", "new_text": "b"}))
                .contains("does not exist")
        );
    }

    #[test]
    fn an_edit_cannot_blow_a_file_up() {
        let fixture = Fixture::with("file", "a".repeat(1_000_000));
        let arguments = json!({"path": "file", "old_text": "a", "new_text": "b".repeat(100_000), "replace_all": true});
        assert!(fixture.error(FileTool::Edit, arguments).contains("100000000000 bytes are more than the 8 MiB"));
    }

    #[test]
    fn a_directory_is_listed_in_order_with_kinds_and_sizes() {
        let fixture = Fixture::with("sub/b.txt", "12345");
        fixture.place.write("sub/a/x", "");
        symlink("b.txt", fixture.place.join("sub/link")).unwrap();
        fixture.place.write("sub/line\nend", "");
        let listed = fixture.ok(FileTool::List, json!({"path": "sub"}));
        assert_eq!(listed, "a/\nb.txt (5 bytes)\nline\\nend (0 bytes)\nlink (a symbolic link)\n");
        assert_eq!(fixture.ok(FileTool::List, json!({})), "sub/\n");
        let empty = Fixture::new();
        assert_eq!(empty.ok(FileTool::List, json!({"path": "."})), "[.: the directory is empty]");
    }

    #[test]
    fn a_directory_of_very_many_names_is_listed_in_part() {
        let fixture = Fixture::new();
        for number in 0..3_000 {
            fixture.place.write(format!("{number:05}"), "");
        }
        let listed = fixture.ok(FileTool::List, json!({}));
        assert!(listed.len() <= OUTPUT_BYTES_MAX);
        let shown = listed.lines().count() - 1;
        assert!(listed.ends_with("shows some of them]") && listed.contains(&format!("[{} more names", 3_000 - shown)));
    }

    #[test]
    fn arguments_of_the_wrong_kind_are_told_even_unchecked() {
        let fixture = Fixture::new();
        for tool in FileTool::ALL {
            let arguments = json!({"path": 5, "pattern": 5, "content": [], "offset": -1});
            let result =
                tool.run(&fixture.workspace, arguments.as_object().unwrap(), OUTPUT_BYTES_MAX, &Secrets::default());
            assert!(matches!(result, Err(ToolError::Arguments(_))), "{tool:?} {result:?}");
        }
        for offset in [json!(0), json!(-3), json!(1.5), json!("2"), json!(1e300)] {
            let arguments = json!({"path": "x", "offset": offset});
            let result = FileTool::Read.run(
                &fixture.workspace,
                arguments.as_object().unwrap(),
                OUTPUT_BYTES_MAX,
                &Secrets::default(),
            );
            assert!(matches!(result, Err(ToolError::Arguments(_))), "{result:?}");
        }
    }

    #[test]
    fn no_result_is_longer_than_its_limit() {
        let fixture = Fixture::with("wide", "x\u{ff}".repeat(100_000) + "\n");
        fixture.place.write("long", numbered_lines(10_000));
        fixture.place.write("latin", b"caf\xe9 au lait, s'il vous plait\n".repeat(1_000));
        for name in 0..200 {
            fixture.place.write(format!("many/{name}-{}", "n".repeat(100)), "x");
        }
        for tool in [FileTool::Read, FileTool::List, FileTool::Find, FileTool::Search] {
            for output_bytes_max in [0, 10, 300, 1_000, 5_000] {
                for path in ["wide", "long", "latin", "many", "."] {
                    for pattern in ["x", "*", "line"] {
                        let arguments = json!({"path": path, "pattern": pattern});
                        if let Ok(text) = tool.run(
                            &fixture.workspace,
                            arguments.as_object().unwrap(),
                            output_bytes_max,
                            &Secrets::default(),
                        ) {
                            assert!(text.len() <= output_bytes_max, "{tool:?} {path} {pattern}: {}", text.len());
                        }
                    }
                }
            }
        }
    }
}
