//! The file tools that look through a tree: `find_files` by name, `search_text` by content.
//!
//! They see what `walk.rs` shows them, so no more than the workspace and never through a symbolic link. `search_text` looks
//! for plain text: a regular expression engine is not among our dependencies, and its description tells the model so.
//!
//! What may surprise: a file that cannot be read, or is binary, is passed over. What was read only in part is told.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::ToolError;
use super::excerpt::{Lines, beginning, ending};
use super::files::{NOTES_BYTES_MAX, SNIFF_BYTES, SpecParts, binary_description, read_line};
use super::glob::Glob;
use super::schema;
use super::walk::walk;
use crate::host::Deadline;
use crate::host::workspace::{Directory, Entry, Kind, Workspace, shown};
use crate::secret::Secrets;

/// How long one search may take. On a local disk the other limits are reached first; on a network disk this one is.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);
/// How many files `find_files` shows, and how many lines `search_text`.
const FIND_LINES_MAX: usize = 1_000;
const SEARCH_LINES_MAX: usize = 300;
/// How much of one file, of all files, and of one line is searched.
const SEARCH_FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
const SEARCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
const SEARCH_LINE_BYTES_MAX: usize = 64 * 1024;
/// How much of a line is shown: some of what is before the match, and the rest from there.
const SHOWN_LINE_BYTES_MAX: usize = 300;
const SHOWN_BEFORE_BYTES_MAX: usize = 100;

pub fn find_spec() -> SpecParts {
    (
        "Find files of the workspace by name. In the pattern, * stands for any part of a name, ? for one character, [a-z] \
         for one of these, ** for any directories. A pattern without / is looked for at any depth: *.rs. With / it is \
         compared with the whole path beneath path: src/**/*.rs. .git is left out.",
        json!(["pattern"]),
        json!({
            "pattern": {"type": "string", "minLength": 1, "description": "The pattern, such as *.rs or src/**/*_test.go."},
            "path": {"type": "string", "description": "The directory to look in, relative to the workspace. Default: the workspace."},
        }),
    )
}

pub fn search_spec() -> SpecParts {
    (
        "Find the lines of text files in the workspace that hold a text. The pattern is plain text within one line, not a \
         regular expression. Gives path:line: text. Binary files and .git are left out.",
        json!(["pattern"]),
        json!({
            "pattern": {"type": "string", "minLength": 1, "description": "The text to look for, as it is."},
            "path": {"type": "string", "description": "The directory or file to look in, relative to the workspace. Default: the workspace."},
            "glob": {"type": "string", "description": "Only files that fit this pattern of find_files, such as *.py."},
            "ignore_case": {"type": "boolean", "description": "Take upper and lower case for the same. Default false."},
        }),
    )
}

pub fn find_files(
    workspace: &Workspace,
    arguments: &Map<String, Value>,
    output_bytes_max: usize,
) -> Result<String, ToolError> {
    let pattern = schema::text(arguments, "pattern")?;
    let glob = parse_glob("pattern", pattern)?;
    let path = Path::new(schema::optional_text(arguments, "path")?.unwrap_or("."));
    let start = workspace.open_directory(path)?;
    let base = start.path().to_owned();
    let mut lines = Lines::new(output_bytes_max.saturating_sub(2 * NOTES_BYTES_MAX), FIND_LINES_MAX);
    let mut count = 0;
    let missed = walk(start, Deadline::after(SEARCH_TIMEOUT), |directory, entry| {
        let found = directory.path().join(&entry.name);
        if fits(&glob, &found, &base) {
            count += 1;
            lines.push(&found_line(&found, entry.kind));
        }
        ControlFlow::Continue(())
    });
    let mut notes = missed.notes();
    if count == 0 {
        notes.insert(0, format!("[no file fits {}]", beginning(pattern, 100)));
    }
    if lines.skipped > 0 {
        notes.insert(0, format!("[{} of {count} files not shown; use a narrower pattern or a path]", lines.skipped));
    }
    Ok(lines.text_with(&notes))
}

fn found_line(path: &Path, kind: Kind) -> String {
    match kind {
        Kind::File => shown(path),
        kind => format!("{} ({kind})", shown(path)),
    }
}

fn parse_glob(name: &str, pattern: &str) -> Result<Glob, ToolError> {
    Glob::parse(pattern).map_err(|what| ToolError::Arguments(format!("{name}: {what}")))
}

/// Whether `path`, which lies beneath `base`, fits a pattern that counts from there.
fn fits(glob: &Glob, path: &Path, base: &Path) -> bool {
    glob.matches(&path.strip_prefix(base).unwrap_or(path).to_string_lossy())
}

pub fn search_text(
    workspace: &Workspace,
    arguments: &Map<String, Value>,
    output_bytes_max: usize,
    secrets: &Secrets,
) -> Result<String, ToolError> {
    let needle =
        Needle::new(schema::text(arguments, "pattern")?, schema::flag(arguments, "ignore_case")?.unwrap_or(false))?;
    let path = Path::new(schema::optional_text(arguments, "path")?.unwrap_or("."));
    let glob = schema::optional_text(arguments, "glob")?.filter(|glob| !glob.is_empty());
    let glob = glob.map(|glob| parse_glob("glob", glob)).transpose()?;
    let lines = Lines::new(output_bytes_max.saturating_sub(2 * NOTES_BYTES_MAX), SEARCH_LINES_MAX);
    let mut search = Search { needle, lines, secrets, searched_bytes: 0, parts: Parts::default() };
    let mut notes = Vec::new();
    if workspace.metadata(path)?.kind == Kind::File {
        search.file(path, workspace.open_file(path)?);
    } else {
        let start = workspace.open_directory(path)?;
        let base = start.path().to_owned();
        let missed = walk(start, Deadline::after(SEARCH_TIMEOUT), |directory, entry| {
            search.entry(directory, entry, |found| glob.as_ref().is_none_or(|glob| fits(glob, found, &base)))
        });
        notes = missed.notes();
    }
    Ok(search.result(notes))
}

/// What is looked for in a line.
struct Needle {
    text: String,
    ignores_case: bool,
}

impl Needle {
    fn new(text: &str, ignores_case: bool) -> Result<Needle, ToolError> {
        if text.is_empty() || text.contains(['\n', '\r']) {
            let what = "is empty or has a line end in it, give some text of one line";
            return Err(ToolError::Arguments(format!("pattern: {what}")));
        }
        Ok(Needle { text: if ignores_case { text.to_lowercase() } else { text.to_owned() }, ignores_case })
    }

    /// Where in `line` it is; with case ignored, roughly.
    fn find(&self, line: &str) -> Option<usize> {
        if self.ignores_case { line.to_lowercase().find(&self.text) } else { line.find(&self.text) }
    }
}

/// One call of `search_text`.
struct Search<'secrets> {
    needle: Needle,
    lines: Lines,
    secrets: &'secrets Secrets,
    searched_bytes: u64,
    parts: Parts,
}

/// What was not searched as a whole.
#[derive(Default)]
struct Parts {
    long_lines: usize,
    large_files: usize,
    unreadable_files: usize,
}

impl Search<'_> {
    fn entry(&mut self, directory: &Directory, entry: &Entry, is_wanted: impl Fn(&Path) -> bool) -> ControlFlow<()> {
        let path: PathBuf = directory.path().join(&entry.name);
        if entry.kind == Kind::File && is_wanted(&path) {
            match directory.open_file(&entry.name) {
                Ok(file) => self.file(&path, file),
                Err(_) => self.parts.unreadable_files += 1,
            }
        }
        if self.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether there is no use in going on.
    fn is_full(&self) -> bool {
        !self.lines.has_room() || self.searched_bytes >= SEARCH_BYTES_MAX
    }

    fn file(&mut self, path: &Path, file: File) {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let mut reader = BufReader::with_capacity(8 * SNIFF_BYTES, file.take(SEARCH_FILE_BYTES_MAX));
        match reader.fill_buf() {
            Ok(bytes) if binary_description(bytes, size).is_some() => return,
            Ok(_) => {}
            Err(_) => return self.parts.unreadable_files += 1,
        }
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            match read_line(&mut reader, &mut line, SEARCH_LINE_BYTES_MAX) {
                Ok(0) => break,
                Ok(length) => {
                    self.searched_bytes += length;
                    self.parts.long_lines += usize::from(length > SEARCH_LINE_BYTES_MAX as u64);
                }
                Err(_) => return self.parts.unreadable_files += 1,
            }
            self.line(path, number, &line);
            if self.is_full() {
                return;
            }
        }
        self.parts.large_files += usize::from(size > SEARCH_FILE_BYTES_MAX);
    }

    fn line(&mut self, path: &Path, number: u64, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if self.needle.find(&text).is_none() {
            return;
        }
        // Masked before it is cut; what then no longer matches was looked for in a secret.
        let line = match line.len() < SEARCH_LINE_BYTES_MAX {
            true => self.secrets.mask(&text).into_owned(),
            false => self.secrets.mask_sides(&text, "").0,
        };
        if let Some(at) = self.needle.find(&line) {
            self.lines.push(&format!("{}:{number}: {}", shown(path), around(line.trim_end(), at)));
        }
    }

    fn result(self, walk_notes: Vec<String>) -> String {
        let mut notes = Vec::new();
        if !self.lines.has_room() {
            notes.push("[stopped here, there may be more; use a longer pattern, a glob or a path]".to_owned());
        } else if self.lines.is_empty() {
            notes.push(format!("[no line holds {}]", beginning(&self.needle.text, 100)));
        }
        if self.searched_bytes >= SEARCH_BYTES_MAX {
            notes.push(format!("[stopped after {} MiB; give a path or a glob]", SEARCH_BYTES_MAX / 1024 / 1024));
        }
        if self.parts.large_files > 0 {
            let (count, limit) = (self.parts.large_files, SEARCH_FILE_BYTES_MAX / 1024 / 1024);
            notes.push(format!("[{count} files searched only in their first {limit} MiB]"));
        }
        if self.parts.long_lines > 0 {
            let (count, limit) = (self.parts.long_lines, SEARCH_LINE_BYTES_MAX / 1024);
            notes.push(format!("[{count} lines searched only in their first {limit} KiB]"));
        }
        if self.parts.unreadable_files > 0 {
            notes.push(format!("[{} files left out that cannot be read]", self.parts.unreadable_files));
        }
        notes.extend(walk_notes);
        self.lines.text_with(&notes)
    }
}

/// The part of `line` around byte `at`, with … where it was cut.
fn around(line: &str, at: usize) -> String {
    let (before, after) = line.split_at_checked(at).unwrap_or(("", line));
    let shown_before = ending(before, SHOWN_BEFORE_BYTES_MAX);
    let shown_after = beginning(after, SHOWN_LINE_BYTES_MAX - shown_before.len());
    let cut_before = if shown_before.len() < before.len() { "…" } else { "" };
    let cut_after = if shown_after.len() < after.len() { "…" } else { "" };
    let text = format!("{cut_before}{shown_before}{shown_after}{cut_after}");
    text.replace(|character: char| character.is_control() && character != '\t', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::TestDirectory;

    const OUTPUT_BYTES_MAX: usize = 10_000;

    fn find(place: &TestDirectory, arguments: Value) -> String {
        let workspace = Workspace::open(place.path()).unwrap();
        find_files(&workspace, arguments.as_object().unwrap(), OUTPUT_BYTES_MAX).unwrap()
    }

    fn search(place: &TestDirectory, arguments: Value) -> Result<String, ToolError> {
        let workspace = Workspace::open(place.path()).unwrap();
        search_text(&workspace, arguments.as_object().unwrap(), OUTPUT_BYTES_MAX, &Secrets::default())
    }

    fn tree() -> TestDirectory {
        let place = TestDirectory::new();
        place.write("src/main.rs", "fn main() {\n    let Name = 1;\n}\n");
        place.write("src/deep/lib.rs", "// name\n");
        place.write("notes.txt", "a name");
        place.write(".git/config", "name");
        place.write("data.bin", b"name\0");
        place
    }

    #[test]
    fn files_are_found_by_pattern_beneath_a_path() {
        let place = tree();
        assert_eq!(find(&place, json!({"pattern": "*.rs"})), "src/deep/lib.rs\nsrc/main.rs\n");
        assert_eq!(find(&place, json!({"pattern": "src/*.rs"})), "src/main.rs\n");
        assert_eq!(find(&place, json!({"pattern": "*/*.rs", "path": "src"})), "src/deep/lib.rs\n");
        assert_eq!(find(&place, json!({"pattern": "config"})), "[no file fits config]");
    }

    #[test]
    fn very_many_found_files_are_counted() {
        let place = TestDirectory::new();
        for number in 0..1_500 {
            place.write(format!("{number:04}.txt"), "");
        }
        let found = find(&place, json!({"pattern": "*"}));
        let shown = found.lines().count() - 1;
        assert!(found.contains(&format!("[{} of 1500 files not shown;", 1_500 - shown)), "{found}");
        assert!(found.len() <= OUTPUT_BYTES_MAX);
    }

    #[test]
    fn a_pattern_that_is_not_understood_is_the_arguments_mistake() {
        let place = tree();
        let workspace = Workspace::open(place.path()).unwrap();
        for (pattern, glob) in [("*.{a,b}", "*.rs"), ("../*", "*.rs")] {
            let arguments = json!({"pattern": pattern, "glob": glob});
            let result = find_files(&workspace, arguments.as_object().unwrap(), OUTPUT_BYTES_MAX);
            assert!(matches!(result, Err(ToolError::Arguments(_))), "{result:?}");
        }
        assert!(matches!(search(&place, json!({"pattern": "x", "glob": "{"})), Err(ToolError::Arguments(_))));
        assert!(matches!(search(&place, json!({"pattern": "a\nb"})), Err(ToolError::Arguments(_))));
        assert!(matches!(search(&place, json!({"pattern": ""})), Err(ToolError::Arguments(_))));
    }

    #[test]
    fn text_is_found_with_path_and_line() {
        let place = tree();
        assert_eq!(
            search(&place, json!({"pattern": "name"})).unwrap(),
            "notes.txt:1: a name\nsrc/deep/lib.rs:1: // name\n"
        );
        let found = search(&place, json!({"pattern": "NAME", "ignore_case": true, "glob": "*.rs"})).unwrap();
        assert_eq!(found, "src/deep/lib.rs:1: // name\nsrc/main.rs:2:     let Name = 1;\n");
        assert_eq!(
            search(&place, json!({"pattern": "name", "path": "src/deep/lib.rs"})).unwrap(),
            "src/deep/lib.rs:1: // name\n"
        );
        assert_eq!(
            search(&place, json!({"pattern": "name", "path": "src", "glob": "deep/*"})).unwrap(),
            "src/deep/lib.rs:1: // name\n"
        );
        assert_eq!(search(&place, json!({"pattern": "n.me"})).unwrap(), "[no line holds n.me]");
    }

    #[test]
    fn links_are_not_followed() {
        let place = tree();
        symlink("/etc", place.join("etc")).unwrap();
        symlink("/etc/passwd", place.join("passwd")).unwrap();
        symlink("..", place.join("src/up")).unwrap();
        assert_eq!(search(&place, json!({"pattern": "root:"})).unwrap(), "[no line holds root:]");
        assert_eq!(find(&place, json!({"pattern": "passwd"})), "passwd (a symbolic link)\n");
    }

    #[test]
    fn a_long_line_is_shown_around_its_match() {
        let place = TestDirectory::new();
        place.write("one", "é".repeat(10_000) + "needle" + &"€".repeat(10_000));
        let found = search(&place, json!({"pattern": "needle"})).unwrap();
        assert!(found.len() < 400 && found.contains("éneedle€") && found.starts_with("one:1: …é"), "{found}");
        assert!(found.ends_with("€…\n"), "{found}");
        place.write("one", "x".repeat(SEARCH_LINE_BYTES_MAX) + "needle\nneedle after\n");
        let found = search(&place, json!({"pattern": "needle"})).unwrap();
        assert_eq!(found, "one:2: needle after\n[1 lines searched only in their first 64 KiB]");
        // The end of the line is the first byte that is not kept: the next line must still be seen.
        place.write("one", "x".repeat(SEARCH_LINE_BYTES_MAX) + "\nneedle\n");
        assert!(search(&place, json!({"pattern": "needle"})).unwrap().starts_with("one:2: needle\n"));
    }

    #[test]
    fn very_many_matches_stop_and_say_so() {
        let place = TestDirectory::new();
        place.write("many", "needle\n".repeat(100_000));
        let found = search(&place, json!({"pattern": "needle"})).unwrap();
        assert_eq!(found.lines().count(), SEARCH_LINES_MAX + 1);
        assert!(found.ends_with("[stopped here, there may be more; use a longer pattern, a glob or a path]"));
    }

    #[test]
    fn a_huge_sparse_file_is_searched_in_part() {
        let place = TestDirectory::new();
        place.write("huge", "start\n".repeat(10_000));
        File::options().write(true).open(place.join("huge")).unwrap().set_len(10 << 30).unwrap();
        let found = search(&place, json!({"pattern": "end"})).unwrap();
        assert!(found.contains("[1 files searched only in their first 32 MiB]"), "{found}");
    }

    #[test]
    fn odd_bytes_and_odd_cases_do_no_harm() {
        let place = TestDirectory::new();
        place.write("latin", b"a very long text with caf\xe9 in it\n");
        // Two characters become three in lower case, so that positions do not agree.
        place.write("turkish", "İİİ Needle\u{1b}[31m\n");
        assert!(search(&place, json!({"pattern": "café"})).unwrap().starts_with("[no line"));
        assert!(search(&place, json!({"pattern": "in it"})).unwrap().contains("caf\u{fffd} in it"));
        let found = search(&place, json!({"pattern": "NEEDLE", "ignore_case": true})).unwrap();
        assert!(found.contains("Needle\u{fffd}[31m"), "{found}");
    }
}
