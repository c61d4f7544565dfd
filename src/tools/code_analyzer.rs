//! The tool `code_analyzer`: where a source tree is large, deep and repetitive, as numbers, ranked, with `path:line`.
//!
//! It walks, adds up and words; what is in one file is measured by `code_metrics.rs`. No process is started, so that it works
//! in an image that holds nothing else; only the list of files that change most asks git, where there is one. What may
//! surprise: the ranking is a rule of thumb, and its result says how it is made.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::ToolError;
use super::child::Surroundings;
use super::code_metrics::{Function, Language, Lines, Metrics, measure};
use super::excerpt::{beginning, excerpt};
use super::files::{SNIFF_BYTES, binary_description};
use super::git::Git;
use super::ignore::Ignored;
use super::schema;
use super::walk::{Missed, Step, walk_choosing};
use crate::conversation::ToolSpec;
use crate::host::Deadline;
use crate::host::workspace::{Directory, Entry, Kind, Workspace, shown};
use crate::sort;

pub const NAME: &str = "code_analyzer";

/// Larger files are generated, or data.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Of all files together: about ten million lines.
const BYTES_MAX: u64 = 512 * 1024 * 1024;
/// A file whose lines are longer than this on average is minified or data.
const LINE_BYTES_MAX: usize = 300;
/// Bytes of a `.gitignore` that are read.
const IGNORE_BYTES_MAX: u64 = 64 * 1024;
/// How many of each thing are told, unless the call says otherwise.
const RANKED_DEFAULT: u64 = 10;
const RANKED_MAX: u64 = 50;
/// Functions that are remembered before the lesser ones are dropped.
const FUNCTIONS_MAX: usize = 20_000;
const FUNCTIONS_KEPT: usize = 2_000;
/// Lines of code that a repeated block has at least.
const BLOCK_LINES_MIN: usize = 8;
/// Places of blocks that are remembered, at 24 bytes each; beyond them new blocks are not looked for.
const BLOCKS_MAX: usize = 400_000;
const REPEATS_MAX: usize = 10_000;
/// Room for what follows the sections.
const NOTES_BYTES_MAX: usize = 1_000;

/// With the git that tells what changes often, if there is one.
pub struct CodeAnalyzer {
    git: Option<Git>,
}

impl CodeAnalyzer {
    pub fn new(git: Option<Git>) -> CodeAnalyzer {
        CodeAnalyzer { git }
    }

    /// The tool as the model sees it.
    pub fn spec() -> ToolSpec {
        ToolSpec {
            name: NAME.to_owned(),
            description: "Measure the source code in the workspace without running it: lines per language, and ranked with \
                          path:line the hot spots, largest files and functions, deepest nesting, loops within loops, \
                          repeated blocks, and files that change most. The numbers are approximations from the text; look \
                          at the places before you judge. Files that .gitignore names are left out."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "The directory or file, relative to the workspace. Default: the workspace."},
                    "limit": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": RANKED_MAX,
                        "description": format!("How many of each thing to tell. Default {RANKED_DEFAULT}."),
                    },
                },
                "additionalProperties": false,
            }),
        }
    }

    pub fn run(
        &self,
        arguments: &Map<String, Value>,
        workspace: &Workspace,
        surroundings: &Surroundings,
    ) -> Result<String, ToolError> {
        let path = Path::new(schema::optional_text(arguments, "path")?.unwrap_or("."));
        let limit = schema::positive(arguments, "limit")?.unwrap_or(RANKED_DEFAULT).min(RANKED_MAX) as usize;
        let deadline = Deadline::after(surroundings.timeout);
        let mut survey = Survey::default();
        let mut missed = Missed::default();
        if workspace.metadata(path)?.kind == Kind::File {
            survey.file(path, workspace.open_file(path)?);
        } else {
            let start = workspace.open_directory(path)?;
            let directory = start.path().to_owned();
            let mut ignored = Ignored::default();
            let mut entered = None;
            missed = walk_choosing(start, deadline, |directory, entry| {
                survey.entry(directory, entry, &mut ignored, &mut entered)
            });
            if let Some(git) = self.git.as_ref().filter(|_| !deadline.has_passed()) {
                let timeout = deadline.left().max(Duration::from_secs(1));
                let churn = git.churn(&directory, &Surroundings { timeout, ..surroundings.clone() });
                survey.changed = churn.into_iter().map(|(path, count)| (shown(&directory.join(path)), count)).collect();
            }
        }
        let text = surroundings.secrets.mask(&survey.report(limit, &missed)).into_owned();
        Ok(excerpt(&text, surroundings.output_bytes_max, "give a path or a smaller limit"))
    }
}

/// What was found so far.
#[derive(Default)]
struct Survey {
    languages: BTreeMap<&'static str, (usize, Lines)>,
    /// Path and lines of code of each file.
    files: Vec<(String, usize)>,
    functions: Vec<Found>,
    /// Files of one of the languages that change most, with the number of commits.
    changed: Vec<(String, usize)>,
    /// Where a block of lines was first: file and line.
    blocks: HashMap<u64, (u32, u32)>,
    repeats: Vec<Repeat>,
    bytes: u64,
    left_out: LeftOut,
}

struct Found {
    file: u32,
    function: Function,
}

/// Lines of code that are there already.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Repeat {
    file: u32,
    first_line: usize,
    last_line: usize,
    lines: usize,
    of_file: u32,
    of_line: usize,
}

#[derive(Default)]
struct LeftOut {
    ignored: usize,
    other: usize,
    binary: usize,
    large: usize,
    minified: usize,
    unreadable: usize,
    is_full: bool,
}

impl Survey {
    fn entry(
        &mut self,
        directory: &Directory,
        entry: &Entry,
        ignored: &mut Ignored,
        entered: &mut Option<std::path::PathBuf>,
    ) -> Step {
        if entered.as_deref() != Some(directory.path()) {
            // Back from a directory beneath, its rules are read again; that is rare, because names come in order.
            ignored.enter(&directory.path().to_string_lossy(), &ignore_file(directory));
            *entered = Some(directory.path().to_owned());
        }
        let path = directory.path().join(&entry.name);
        if ignored.covers(&path.to_string_lossy(), entry.kind == Kind::Directory) {
            self.left_out.ignored += 1;
            return Step::PassOver;
        }
        if entry.kind == Kind::File {
            match directory.open_file(&entry.name) {
                Ok(file) => self.file(&path, file),
                Err(_) => self.left_out.unreadable += 1,
            }
        }
        if self.left_out.is_full { Step::Stop } else { Step::GoOn }
    }

    fn file(&mut self, path: &Path, file: std::fs::File) {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Without an extension the first line tells; else the name must.
        if Language::of(&name, "#!/bin/sh").is_none() || name.contains('.') && Language::of(&name, "").is_none() {
            return self.left_out.other += 1;
        }
        if size > FILE_BYTES_MAX {
            return self.left_out.large += 1;
        }
        let mut bytes = Vec::new();
        if file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).is_err() {
            return self.left_out.unreadable += 1;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some(language) = Language::of(&name, text.lines().next().unwrap_or_default()) else {
            return self.left_out.other += 1;
        };
        if binary_description(bytes.get(..SNIFF_BYTES.min(bytes.len())).unwrap_or_default(), size).is_some() {
            return self.left_out.binary += 1;
        }
        if text.len() > LINE_BYTES_MAX * (text.lines().count() + 1) {
            return self.left_out.minified += 1;
        }
        self.bytes += bytes.len() as u64;
        self.left_out.is_full |= self.bytes >= BYTES_MAX;
        self.add(path, language, measure(language, &text));
    }

    fn add(&mut self, path: &Path, language: &'static Language, metrics: Metrics) {
        let file = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        self.files.push((shown(path), metrics.lines.code));
        let (files, lines) = self.languages.entry(language.name).or_default();
        *files += 1;
        lines.code += metrics.lines.code;
        lines.comments += metrics.lines.comments;
        lines.blanks += metrics.lines.blanks;
        self.find_repeats(file, &metrics.code);
        self.functions.extend(metrics.functions.into_iter().map(|function| Found { file, function }));
        if self.functions.len() > FUNCTIONS_MAX {
            self.functions = sort::by_key_reversed(self.functions.drain(..), |found| score(&found.function));
            self.functions.truncate(FUNCTIONS_KEPT);
        }
    }

    /// Every block of lines is looked up; one in four is remembered, chosen by its content, so that equal blocks are chosen
    /// alike and memory stays small.
    fn find_repeats(&mut self, file: u32, code: &[(usize, u64)]) {
        let mut current: Option<Repeat> = None;
        for window in code.windows(BLOCK_LINES_MIN) {
            let (Some((first, _)), Some((last, _))) = (window.first(), window.last()) else { continue };
            let block = window
                .iter()
                .fold(0_u64, |hash, (_, line)| hash.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ line);
            if block >> 62 != 0 {
                continue;
            }
            match self.blocks.get(&block) {
                Some((of_file, of_line)) if self.repeats.len() < REPEATS_MAX => {
                    let of_line = *of_line as usize;
                    // The next piece of the same repetition, or a new one.
                    match &mut current {
                        Some(repeat) if repeat.of_file == *of_file && *first <= repeat.last_line => {
                            repeat.last_line = *last;
                        }
                        _ => {
                            self.repeats.extend(current.take());
                            let repeat = Repeat {
                                file,
                                first_line: *first,
                                last_line: *last,
                                lines: 0,
                                of_file: *of_file,
                                of_line,
                            };
                            // A block that repeats itself at once, as in tables, is no copy.
                            current = (*of_file != file || of_line + BLOCK_LINES_MIN <= *first).then_some(repeat);
                        }
                    }
                }
                Some(_) => {}
                None if self.blocks.len() < BLOCKS_MAX => {
                    self.blocks.insert(block, (file, u32::try_from(*first).unwrap_or(u32::MAX)));
                }
                None => {}
            }
        }
        let added = self.repeats.len();
        self.repeats.extend(current);
        for repeat in
            self.repeats.iter_mut().skip(added.saturating_sub(code.len())).filter(|repeat| repeat.file == file)
        {
            repeat.lines = repeat.last_line + 1 - repeat.first_line;
        }
    }

    fn place(&self, file: u32, line: usize) -> String {
        let path = self.files.get(file as usize).map_or("?", |(path, _)| path.as_str());
        format!("{path}:{line}")
    }

    /// The sections, and what they leave out.
    fn report(&self, limit: usize, missed: &Missed) -> String {
        let mut text = String::new();
        self.tell_languages(&mut text);
        if !self.files.is_empty() {
            self.tell_functions(&mut text, limit);
            self.tell_files(&mut text, limit);
        }
        let mut notes = missed.notes();
        notes.extend(self.left_out.notes());
        notes.push("[functions, branches, nesting and loops are read from the text, approximately]".to_owned());
        text.push_str(beginning(&notes.join("\n"), NOTES_BYTES_MAX));
        text
    }

    fn tell_languages(&self, text: &mut String) {
        if self.languages.is_empty() {
            return text.push_str("[no source file of a known language here]\n\n");
        }
        text.push_str("Lines (files, code, comments, blanks)\n");
        for (name, (files, lines)) in sort::by_key_reversed(&self.languages, |(_, (_, lines))| lines.code) {
            text.push_str(&format!("{name}: {files}, {}, {}, {}\n", lines.code, lines.comments, lines.blanks));
        }
        text.push('\n');
    }

    fn tell_functions(&self, text: &mut String, limit: usize) {
        let changes: HashMap<&str, usize> = self.changed.iter().map(|(path, count)| (path.as_str(), *count)).collect();
        let heat = |found: &Found| {
            let path = self.files.get(found.file as usize).map_or("", |(path, _)| path.as_str());
            // Each doubling of the changes counts as much again as a quarter of the function.
            let doublings = changes.get(path).map_or(0, |count| count.ilog2() as usize);
            score(&found.function) * (4 + doublings) / 4
        };
        let line = |found: &Found| {
            let f = &found.function;
            format!(
                "{} {}: {} lines, {} branches, nesting {}, loops {} deep",
                self.place(found.file, f.line),
                f.name,
                f.lines,
                f.branches,
                f.nesting,
                f.loops
            )
        };
        let mut rank = |title: &str, least: usize, key: &dyn Fn(&Found) -> usize| {
            let found = self.functions.iter().filter(|found| key(found) >= least);
            let found = sort::by_key_reversed(found, |found| key(found));
            section(text, title, limit, found.iter().map(|found| line(found)));
        };
        rank(
            "Hot spots (score = lines/10 + branches + 5 per nesting beyond 2 + 20 per loop within a loop, more where changes are frequent)",
            10,
            &heat,
        );
        rank("Largest functions", 30, &|found| found.function.lines);
        rank("Deepest nesting", 4, &|found| found.function.nesting);
        rank("Most branches", 10, &|found| found.function.branches);
        rank("Loops within loops", 2, &|found| found.function.loops);
    }

    fn tell_files(&self, text: &mut String, limit: usize) {
        let files = sort::by_key_reversed(&self.files, |(_, code)| *code);
        section(
            text,
            "Largest files",
            limit,
            files.iter().map(|(path, code)| format!("{path}:1 {code} lines of code")),
        );
        let repeats = sort::by_key_reversed(&self.repeats, |repeat| repeat.lines);
        let lines = repeats.iter().map(|repeat| {
            let (place, of) = (self.place(repeat.file, repeat.first_line), self.place(repeat.of_file, repeat.of_line));
            format!("{place} repeats about {} lines of {of}", repeat.lines)
        });
        section(text, "Repeated blocks", limit, lines);
        let known = self.changed.iter().filter(|(path, _)| self.files.iter().any(|(other, _)| other == path));
        section(text, "Files that change most", limit, known.map(|(path, count)| format!("{path}:1 {count} commits")));
    }
}

/// How much a function asks of its reader, and perhaps of the machine.
fn score(function: &Function) -> usize {
    function.lines / 10
        + function.branches
        + 5 * function.nesting.saturating_sub(2)
        + 20 * function.loops.saturating_sub(1)
}

fn section(text: &mut String, title: &str, limit: usize, lines: impl Iterator<Item = String>) {
    let mut lines = lines.take(limit).enumerate().peekable();
    if lines.peek().is_none() {
        return;
    }
    text.push_str(title);
    text.push('\n');
    for (index, line) in lines {
        text.push_str(&format!("{}. {line}\n", index + 1));
    }
    text.push('\n');
}

impl LeftOut {
    fn notes(&self) -> Vec<String> {
        let counts = [
            (self.ignored, "named by .gitignore".to_owned()),
            (self.other, "of no known language".to_owned()),
            (self.binary, "binary".to_owned()),
            (self.large, format!("larger than {} MiB", FILE_BYTES_MAX / 1024 / 1024)),
            (self.minified, "minified".to_owned()),
            (self.unreadable, "unreadable".to_owned()),
        ];
        let told: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let mut notes = Vec::new();
        if !told.is_empty() {
            notes.push(format!("[left out: {}]", told.join(", ")));
        }
        if self.is_full {
            notes.push(format!("[stopped after {} MiB; give a path]", BYTES_MAX / 1024 / 1024));
        }
        notes
    }
}

fn ignore_file(directory: &Directory) -> String {
    let mut text = Vec::new();
    if let Ok(file) = directory.open_file(".gitignore".as_ref()) {
        // What was read before a failure still counts.
        let _ = file.take(IGNORE_BYTES_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<(usize, u64)> {
        measure(Language::of("a.rs", "").unwrap(), text).code
    }

    #[test]
    fn a_block_that_is_there_twice_is_found_whole() {
        let block: String = (0..40).map(|number| format!("    call_{number}(a, b);\n")).collect();
        let mut survey = Survey::default();
        survey.find_repeats(0, &code(&format!("fn a() {{\n{block}}}\n")));
        survey.find_repeats(1, &code(&format!("fn b() {{\n    other();\n\n{block}    end();\n}}\n")));
        assert_eq!(survey.repeats.len(), 1, "{:?}", survey.repeats);
        let repeat = survey.repeats[0];
        assert!(repeat.lines >= 30 && repeat.first_line >= 4 && repeat.last_line <= 43, "{repeat:?}");
    }

    #[test]
    fn lines_that_repeat_at_once_are_no_copy() {
        let mut survey = Survey::default();
        survey.find_repeats(0, &code(&"    0,\n".repeat(100)));
        assert_eq!(survey.repeats.iter().filter(|repeat| repeat.lines < 50).count(), 0, "{:?}", survey.repeats);
    }
}
