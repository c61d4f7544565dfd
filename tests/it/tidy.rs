//! The rules of the house that a machine can check.
//!
//! Each rule is a pure function from text to a list of violations, with a test that plants one and sees it found, and a test
//! that holds the real files to it. What may surprise: a small lexer reads the sources, so that comments, strings and
//! everything beneath `#[cfg(test)]` do not count, and names brought in by `use` are followed to where they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What one room of the house may know (the table "who may know whom").
struct Room {
    /// A file, or a folder with a slash at its end.
    place: &'static str,
    /// Of our own modules: these and itself; outside `host/` also its folder, in `wire/` only the folder's `mod.rs`.
    ours: &'static [&'static str],
    /// Of everybody else's: not these.
    others: &'static [&'static str],
}

const WORLD: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time",
    "log",
    "ureq",
];
const CLOCK_AND_WORLD: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "ureq",
];

/// The first room that holds a file is its room.
const ROOMS: &[Room] = &[
    Room { place: "src/conversation.rs", ours: &[], others: WORLD },
    Room { place: "src/wire/", ours: &["crate::conversation", "crate::sort", "crate::wire::sse"], others: WORLD },
    Room { place: "src/host/log.rs", ours: &["crate::host::Deadline", "crate::host::sys"], others: &["ureq"] },
    Room {
        place: "src/host/dialog.rs",
        ours: &["crate::host::Deadline", "crate::host::process", "crate::host::sys"],
        others: &["serde", "serde_json", "env_logger"],
    },
    Room {
        place: "src/host/",
        // `stop`: a child must not be started and forgotten between two instructions.
        ours: &["crate::host::Deadline", "crate::host::stop", "crate::host::sys"],
        others: &["serde", "serde_json", "env_logger"],
    },
    // Of the conversation, config knows the fingerprint that a journal begins with.
    Room {
        place: "src/config/",
        ours: &["crate::conversation::Fingerprint", "crate::conversation::checksum", "crate::secret"],
        others: &["ureq", "std::net::TcpStream", "std::process"],
    },
    Room { place: "src/secret.rs", ours: &["crate::sort"], others: WORLD },
    Room { place: "src/sort.rs", ours: &[], others: CLOCK_AND_WORLD },
    Room {
        place: "src/model/",
        ours: &[
            "crate::wire",
            "crate::host::http",
            "crate::host::Deadline",
            "crate::config",
            "crate::conversation",
            "crate::secret",
        ],
        others: &["ureq", "std::env", "std::net", "std::process"],
    },
    Room {
        place: "src/tools/",
        ours: &[
            "crate::host",
            "crate::wire::mcp",
            "crate::wire::sse",
            "crate::config",
            "crate::conversation",
            "crate::secret",
            "crate::sort",
        ],
        others: &["ureq", "std::env", "std::net", "std::process"],
    },
    Room {
        place: "src/journal.rs",
        // `sys`: the lock, which std has not offered for long.
        ours: &["crate::conversation", "crate::host::sys"],
        others: &["ureq", "std::env", "std::net", "std::process"],
    },
    Room {
        place: "src/progress.rs",
        // It adds up what the verifier is shown and how large a question was, too.
        ours: &[
            "crate::compaction",
            "crate::conversation",
            "crate::outcome",
            "crate::prompt",
            "crate::tools::finish",
            "crate::trail",
        ],
        others: CLOCK_AND_WORLD,
    },
    Room { place: "src/prompt.rs", ours: &["crate::config", "crate::conversation"], others: CLOCK_AND_WORLD },
    Room {
        place: "src/outcome.rs",
        ours: &[
            "crate::config",
            "crate::conversation",
            "crate::model::ModelError",
            "crate::model::ModelErrorKind",
            "crate::secret",
            "crate::journal::JournalError",
            "crate::tools::ToolError",
        ],
        others: CLOCK_AND_WORLD,
    },
    // Sums and comparisons of what the configuration allows and the run has used.
    Room {
        place: "src/budget.rs",
        ours: &["crate::config::Limits", "crate::conversation", "crate::outcome::Spent"],
        others: WORLD,
    },
    // Both cut texts, and mask them first; that is pure.
    Room {
        place: "src/compaction.rs",
        ours: &["crate::conversation", "crate::secret", "crate::tools::excerpt"],
        others: WORLD,
    },
    Room {
        place: "src/trail.rs",
        ours: &["crate::conversation", "crate::secret", "crate::sort", "crate::tools::excerpt"],
        others: WORLD,
    },
    // It asks a model in words of ours; that it never sees a tool at work is the point of it.
    Room {
        place: "src/verifier.rs",
        ours: &[
            "crate::model",
            "crate::config",
            "crate::conversation",
            "crate::outcome::KeyResultState",
            "crate::prompt",
            "crate::tools::excerpt",
            "crate::trail",
        ],
        others: &["ureq", "std::env", "std::fs", "std::net", "std::process"],
    },
    Room {
        place: "src/verify.rs",
        ours: &[
            "crate::model",
            "crate::host::process",
            "crate::host::Deadline",
            "crate::config",
            "crate::conversation",
        ],
        others: &["ureq", "std::env", "std::fs", "std::net", "std::process"],
    },
    Room { place: "src/agent.rs", ours: &["crate"], others: &["ureq", "std::env", "std::process"] },
    Room { place: "src/main.rs", ours: &["crate"], others: &["ureq"] },
];

/// What only these files may name.
const DOORS: &[(&str, &[&str])] = &[
    ("ureq", &["src/host/http.rs"]),
    ("env_logger", &["src/host/log.rs"]),
    ("std::process::Command", &["src/host/process.rs"]),
    ("std::env", &["src/config/mod.rs"]),
    ("std::process::exit", &[]),
    ("std::process::abort", &[]),
    ("crate::testing", &[]),
];

/// Names behind a door that are free all the same, where they are free.
const FREE: &[(&str, &[&str])] = &[
    // Pure: it cuts a text into pieces.
    ("std::env::split_paths", &["src/host/process.rs"]),
    ("std::env::args", &["src/main.rs"]),
    ("std::env::args_os", &["src/main.rs"]),
    ("std::process::ExitCode", &["src/main.rs", "src/outcome.rs"]),
];

const UNSAFE_FILE: &str = "src/host/sys.rs";
const PRINTING_FILE: &str = "src/main.rs";
/// It is no part of the program.
const TESTING_FILE: &str = "src/testing.rs";
const ROOMLESS_NAMES: &[&str] = &["utils", "common", "helpers", "types"];
const DEPENDENCIES: &[&str] = &["env_logger", "log", "serde", "serde_json", "ureq"];
const EXIT_CODES: &[u16] = &[0, 1, 69, 70, 75, 77, 78, 130, 143];

/// `.git` and `target` are git's and cargo's.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".dockerignore",
    ".git",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "Containerfile",
    "LICENSE",
    "README.md",
    "justfile",
    "src",
    "target",
    "tests",
];

// The lexer.

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Number(String),
    Sign(char),
}

impl Token {
    fn is(&self, sign: char) -> bool {
        *self == Token::Sign(sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self, Token::Name(text) if text == name)
    }
}

/// The tokens of Rust source; comments, and what is between quotes, are gone.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut index = 0;
    while index < chars.len() {
        let c = at(index);
        if c == '/' && at(index + 1) == '/' {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if c == '/' && at(index + 1) == '*' {
            index = after_block_comment(&chars, index);
        } else if c == '"' {
            index = after_string(&chars, index + 1);
        } else if c == '\'' {
            index = after_quote(&chars, index);
        } else if is_name(c) {
            let start = index;
            while is_name(at(index)) {
                index += 1;
            }
            let name: String = chars[start..index].iter().collect();
            let is_raw = ["r", "br", "cr"].contains(&name.as_str());
            let hashes = chars[index..].iter().take_while(|c| **c == '#').count();
            if is_raw && at(index + hashes) == '"' {
                let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                index += hashes + 1;
                while index < chars.len() && !chars[index..].starts_with(&end) {
                    index += 1;
                }
                index += end.len();
            } else if c.is_ascii_digit() {
                tokens.push(Token::Number(name));
            } else if !(["b", "c"].contains(&name.as_str()) && ['"', '\''].contains(&at(index))) {
                tokens.push(Token::Name(name));
            }
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Sign(c));
            }
            index += 1;
        }
    }
    tokens
}

fn after_block_comment(chars: &[char], start: usize) -> usize {
    let (mut index, mut depth) = (start, 0);
    while index < chars.len() {
        if chars[index..].starts_with(&['/', '*']) {
            (depth, index) = (depth + 1, index + 2);
        } else if chars[index..].starts_with(&['*', '/']) {
            (depth, index) = (depth - 1, index + 2);
            if depth == 0 {
                break;
            }
        } else {
            index += 1;
        }
    }
    index
}

fn after_string(chars: &[char], start: usize) -> usize {
    let mut index = start;
    while index < chars.len() && chars[index] != '"' {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// Behind a character literal, or behind the quote of a lifetime.
fn after_quote(chars: &[char], start: usize) -> usize {
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    if at(start + 1) == '\\' {
        let end = chars.iter().skip(start + 3).position(|c| *c == '\'').unwrap_or(chars.len());
        return start + 3 + end + 1;
    }
    if at(start + 2) == '\'' { start + 3 } else { start + 1 }
}

/// The tokens without the items beneath `#[cfg(test)]`.
fn tokens_without_tests(source: &str) -> Vec<Token> {
    let all = tokens(source);
    let marker = tokens("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut index = 0;
    while index < all.len() {
        if all[index..].starts_with(&marker) {
            index = after_item(&all, index + marker.len());
        } else {
            kept.push(all[index].clone());
            index += 1;
        }
    }
    kept
}

/// Behind the item that starts here: its `;`, or the brace that closes its first one.
fn after_item(tokens: &[Token], start: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(start) {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 && (token.is(';') || token.is('}')) {
            return index + 1;
        }
    }
    tokens.len()
}

// Paths.

/// `src/a/b.rs` is `crate::a::b`.
fn module_of(file: &str) -> String {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let names = path.split('/').filter(|name| !["main", "mod"].contains(name));
    std::iter::once("crate").chain(names).collect::<Vec<_>>().join("::")
}

/// The paths that a file names outside its tests, each from its root (`crate`, `std`, or the crate it belongs to).
fn paths(file: &str, source: &str) -> BTreeSet<String> {
    let tokens = tokens_without_tests(source);
    let mut written = Vec::new();
    let mut imported = BTreeMap::new();
    // The module at each open brace.
    let mut modules = vec![module_of(file)];
    let mut index = 0;
    while index < tokens.len() {
        let module = modules.last().cloned().unwrap_or_default();
        match &tokens[index..] {
            [token, ..] if token.is_name("use") => {
                let mut trees = Vec::new();
                index = use_tree(&tokens, index + 1, &[], &mut trees);
                for (path, name) in trees {
                    imported.insert(name, from_root(&module, &path));
                }
            }
            [token, Token::Name(name), brace, ..] if token.is_name("mod") && brace.is('{') => {
                modules.push(format!("{module}::{name}"));
                index += 3;
            }
            [Token::Name(_), ..] => {
                let mut path = Vec::new();
                index = one_path(&tokens, index, &mut path);
                written.push((module, path));
            }
            [token, ..] => {
                if token.is('{') {
                    modules.push(module);
                } else if token.is('}') {
                    modules.pop();
                }
                index += 1;
            }
            [] => {}
        }
    }
    let mut paths: BTreeSet<String> = imported.values().cloned().collect();
    for (module, path) in written.into_iter().filter(|(_, path)| path.len() > 1) {
        paths.insert(match imported.get(&path[0]) {
            Some(origin) => format!("{origin}::{}", path[1..].join("::")),
            None => from_root(&module, &path),
        });
    }
    paths
}

/// Reads `a::b::c`; returns the place behind it.
fn one_path(tokens: &[Token], start: usize, path: &mut Vec<String>) -> usize {
    let mut index = start;
    while let Some(Token::Name(name)) = tokens.get(index) {
        path.push(name.clone());
        index += 1;
        let goes_on = matches!(tokens.get(index..index + 3), Some([a, b, Token::Name(_)]) if a.is(':') && b.is(':'));
        if !goes_on {
            break;
        }
        index += 2;
    }
    index
}

/// Reads what follows `use`, up to its `;`, `,` or closing brace, into pairs of path and the name it gets here.
fn use_tree(tokens: &[Token], start: usize, prefix: &[String], trees: &mut Vec<(Vec<String>, String)>) -> usize {
    let mut path = prefix.to_vec();
    let mut index = start;
    loop {
        match tokens.get(index) {
            Some(Token::Name(name)) if name == "as" => {
                let Some(Token::Name(alias)) = tokens.get(index + 1) else { return index + 1 };
                trees.push((path, alias.clone()));
                return index + 2;
            }
            Some(Token::Name(name)) => {
                // `{self}` is the module itself.
                if name != "self" || path.is_empty() {
                    path.push(name.clone());
                }
                index += 1;
            }
            Some(Token::Sign(':')) => index += 1,
            Some(Token::Sign('*')) => {
                path.push("*".to_owned());
                trees.push((path.clone(), path.join("::")));
                return index + 1;
            }
            Some(Token::Sign('{')) => {
                index += 1;
                while tokens.get(index).is_some_and(|token| !token.is('}')) {
                    index = use_tree(tokens, index, &path, trees);
                    if tokens.get(index).is_some_and(|token| token.is(',')) {
                        index += 1;
                    }
                }
                return index + 1;
            }
            _ => {
                let name = path.last().cloned().unwrap_or_default();
                trees.push((path, name));
                return index;
            }
        }
    }
}

/// The path, named in this module, with `self` and `super` resolved.
fn from_root(module: &str, path: &[String]) -> String {
    let mut root: Vec<&str> = module.split("::").collect();
    let mut rest = path;
    while let Some(first) = rest.first() {
        match first.as_str() {
            "self" => {}
            "super" => {
                root.pop();
            }
            _ => break,
        }
        rest = &rest[1..];
    }
    match rest.len() == path.len() {
        true => path.join("::"),
        false => root.into_iter().chain(rest.iter().map(String::as_str)).collect::<Vec<_>>().join("::"),
    }
}

/// Whether `path` is `root` or lies beneath it.
fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

// The rules: who may know whom.

fn is_free(file: &str, path: &str) -> bool {
    FREE.iter().any(|(free, files)| files.contains(&file) && (is_within(path, free) || is_within(free, path)))
}

/// Violations of the table, for one file. `siblings` are the modules of its folder.
fn room_violations(file: &str, source: &str, siblings: &[String]) -> Vec<String> {
    let Some(room) = ROOMS.iter().find(|room| match room.place.ends_with('/') {
        true => file.starts_with(room.place),
        false => file == room.place,
    }) else {
        return match file {
            TESTING_FILE => Vec::new(),
            _ => vec![format!("{file} has no room in the table")],
        };
    };
    let own = module_of(file);
    let folder = match file.matches('/').count() {
        0 | 1 => None,
        _ if file.ends_with("/mod.rs") => Some(own.as_str()),
        _ => own.rsplit_once("::").map(|(folder, _)| folder),
    };
    let mut violations = Vec::new();
    for path in paths(file, source) {
        let is_known = room.ours.iter().any(|known| is_within(&path, known) || is_within(known, &path));
        let is_folders = folder.is_some_and(|folder| is_within(&path, folder))
            && match file.split('/').nth(1) {
                Some("host") => false,
                Some("wire") => !siblings.iter().any(|sibling| is_within(&path, sibling)),
                _ => true,
            };
        if is_within(&path, "crate") && !is_known && !is_within(&path, &own) && !is_folders {
            violations.push(format!("{file} must not know {path}"));
        }
        let is_forbidden = room.others.iter().any(|other| is_within(&path, other));
        if is_forbidden && !is_free(file, &path) {
            violations.push(format!("{file} must not know {path}"));
        }
    }
    violations
}

fn door_violations(file: &str, source: &str) -> Vec<String> {
    let mut violations = Vec::new();
    for path in paths(file, source) {
        for (door, files) in DOORS {
            if is_within(&path, door) && !files.contains(&file) && file != TESTING_FILE && !is_free(file, &path) {
                violations.push(format!("{file} must not name {path}"));
            }
        }
    }
    violations
}

/// What a glob brings in, no other rule here can see.
fn glob_violations(file: &str, source: &str) -> Vec<String> {
    let globs = paths(file, source).into_iter().filter(|path| path.ends_with("::*"));
    globs.map(|path| format!("{file} imports {path}")).collect()
}

fn unsafe_violations(file: &str, source: &str) -> Vec<String> {
    let has_unsafe = tokens(source).iter().any(|token| token.is_name("unsafe"));
    if has_unsafe && file != UNSAFE_FILE { vec![format!("{file} has unsafe code")] } else { Vec::new() }
}

fn macro_violations(file: &str, source: &str) -> Vec<String> {
    let mut violations = Vec::new();
    for pair in tokens_without_tests(source).windows(2) {
        let [Token::Name(name), sign] = pair else { continue };
        let is_left_over = ["todo", "unimplemented", "dbg"].contains(&name.as_str());
        let prints = ["print", "println", "eprint", "eprintln"].contains(&name.as_str())
            && ![PRINTING_FILE, TESTING_FILE].contains(&file);
        if sign.is('!') && (is_left_over || prints) {
            violations.push(format!("{file} has {name}!"));
        }
    }
    violations
}

fn name_violations(file: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let stem = file.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    if ROOMLESS_NAMES.contains(&stem) {
        violations.push(format!("{file}: what is in it has not found its room"));
    }
    if file.matches('/').count() > 2 {
        violations.push(format!("{file} is deeper than src/a/b.rs"));
    }
    violations
}

fn opening_violations(file: &str, source: &str) -> Vec<String> {
    let opens_well = source.starts_with("//! ");
    if opens_well { Vec::new() } else { vec![format!("{file} does not open with //!")] }
}

/// The module that only tests use is only in tests.
fn testing_violations(main: &str) -> Vec<String> {
    let declares =
        |tokens: Vec<Token>| tokens.windows(2).any(|pair| pair[0].is_name("mod") && pair[1].is_name("testing"));
    let is_in_the_program = declares(tokens_without_tests(main));
    if is_in_the_program { vec!["src/main.rs: mod testing is not for tests only".to_owned()] } else { Vec::new() }
}

// The rules: documents and code agree.

/// The names in this text that begin with `THOUGHTMESH_`; `THOUGHTMESH_*` is none.
fn variables(text: &str) -> BTreeSet<String> {
    const PREFIX: &str = "THOUGHTMESH_";
    text.match_indices(PREFIX)
        .map(|(start, _)| {
            let rest = &text[start + PREFIX.len()..];
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
            format!("{PREFIX}{}", &rest[..end])
        })
        .filter(|name| name != PREFIX)
        .collect()
}

/// The source without its tests, as text; the tests are the last item of a file.
fn text_without_tests(source: &str) -> &str {
    source.split("\n#[cfg(test)]\nmod tests").next().unwrap_or(source)
}

fn variable_violations(config: &str, readme: &str) -> Vec<String> {
    let (in_config, in_readme) = (variables(text_without_tests(config)), variables(readme));
    let undocumented = in_config.difference(&in_readme).map(|name| format!("README.md does not name {name}"));
    let unread = in_readme.difference(&in_config).map(|name| format!("src/config/mod.rs does not name {name}"));
    undocumented.chain(unread).collect()
}

/// The codes in the first column of tables.
fn codes_of_readme(readme: &str) -> BTreeSet<u16> {
    let cells = readme.lines().filter_map(|line| line.trim().strip_prefix('|')?.split('|').next());
    cells.filter_map(|cell| cell.trim().trim_matches('`').parse().ok()).collect()
}

/// The numbers that an arm of a `match` gives.
fn codes_of_outcome(source: &str) -> BTreeSet<u16> {
    let tokens = tokens_without_tests(source);
    let arms = tokens.windows(3).filter_map(|window| match window {
        [equals, arrow, Token::Number(number)] if equals.is('=') && arrow.is('>') => number.parse().ok(),
        _ => None,
    });
    arms.collect()
}

fn exit_code_violations(readme: &str, outcome: &str) -> Vec<String> {
    let contract: BTreeSet<u16> = EXIT_CODES.iter().copied().collect();
    let mut violations = Vec::new();
    for (file, codes) in [("README.md", codes_of_readme(readme)), ("src/outcome.rs", codes_of_outcome(outcome))] {
        let missing = contract.difference(&codes).map(|code| format!("{file} lacks the exit code {code}"));
        let unknown = codes.difference(&contract).map(|code| format!("{file} has the exit code {code}"));
        violations.extend(missing.chain(unknown));
    }
    violations
}

/// The files that the map at the top of `src/main.rs` lists, as paths from the package's root.
fn files_of_map(main: &str) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folder = String::new();
    let map = main.lines().take_while(|line| line.starts_with("//!")).skip_while(|line| *line != "//! src/");
    for line in map {
        let Some((branch, entry)) = line.trim_start_matches("//!").split_once("── ") else { continue };
        let name = entry.split_whitespace().next().unwrap_or_default();
        let is_nested = branch.trim_start_matches(' ').chars().count() > 1 || branch.starts_with("     ");
        if let Some(name) = name.strip_suffix('/') {
            folder = format!("{name}/");
        } else if is_nested {
            files.insert(format!("src/{folder}{name}"));
        } else {
            files.insert(format!("src/{name}"));
        }
    }
    files
}

fn map_violations(main: &str, sources: &BTreeSet<String>) -> Vec<String> {
    let listed = files_of_map(main);
    let unlisted = sources.difference(&listed).map(|file| format!("the map in src/main.rs lacks {file}"));
    let absent =
        listed.difference(sources).map(|file| format!("the map in src/main.rs lists {file}, which is not there"));
    unlisted.chain(absent).collect()
}

fn dependency_violations(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let named: BTreeSet<&str> =
        lines.filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.split_once('=')?.0.trim())).collect();
    let agreed: BTreeSet<&str> = DEPENDENCIES.iter().copied().collect();
    let other_sections = ["[target.", "[dependencies.", "[build-dependencies"];
    let elsewhere = manifest.lines().filter(|line| other_sections.iter().any(|start| line.starts_with(start)));
    let differing =
        named.symmetric_difference(&agreed).map(|name| format!("[dependencies] and the agreed five differ by {name}"));
    differing.chain(elsewhere.map(|line| format!("Cargo.toml has a section {line}"))).collect()
}

fn top_level_violations(entries: &BTreeSet<String>) -> Vec<String> {
    let others = entries.iter().filter(|entry| !TOP_LEVEL.contains(&entry.as_str()));
    others.map(|entry| format!("{entry} is not an agreed entry of the top level")).collect()
}

// The real files are held to the rules.

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every Rust file beneath a folder, as a path from the package's root, with its text.
fn rust_files(folder: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files.extend(rust_files(&name));
        } else if name.ends_with(".rs") {
            let text = read(&name);
            files.insert(name, text);
        }
    }
    files
}

fn siblings_of(file: &str, sources: &BTreeMap<String, String>) -> Vec<String> {
    let folder = |file: &str| file.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let is_sibling = |other: &&String| folder(other) == folder(file) && !other.ends_with("/mod.rs") && *other != file;
    sources.keys().filter(is_sibling).map(|other| module_of(other)).collect()
}

#[track_caller]
fn assert_none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[track_caller]
fn each_source(violations: impl Fn(&str, &str) -> Vec<String>) {
    let sources = rust_files("src");
    assert!(sources.contains_key("src/main.rs"), "the sources were not found");
    assert_none(sources.iter().flat_map(|(file, source)| violations(file, source)).collect());
}

#[test]
fn every_file_knows_only_what_its_room_may_know() {
    let sources = rust_files("src");
    each_source(|file, source| room_violations(file, source, &siblings_of(file, &sources)));
}

#[test]
fn every_door_is_one_file() {
    each_source(door_violations);
}

#[test]
fn nothing_is_imported_by_a_glob() {
    each_source(glob_violations);
}

#[test]
fn unsafe_code_is_in_one_file() {
    each_source(unsafe_violations);
}

#[test]
fn nothing_is_left_over_and_only_main_prints() {
    each_source(macro_violations);
}

#[test]
fn every_file_has_a_name_that_says_what_it_is_for() {
    each_source(|file, _| name_violations(file));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    each_source(opening_violations);
    let tests = rust_files("tests/it");
    assert_none(tests.iter().flat_map(|(file, source)| opening_violations(file, source)).collect());
}

#[test]
fn what_is_for_tests_only_is_in_tests_only() {
    assert_none(testing_violations(&read("src/main.rs")));
}

#[test]
fn readme_and_code_name_the_same_variables() {
    assert_none(variable_violations(&read("src/config/mod.rs"), &read("README.md")));
}

#[test]
fn readme_and_code_have_the_exit_codes_of_the_contract() {
    assert_none(exit_code_violations(&read("README.md"), &read("src/outcome.rs")));
}

#[test]
fn the_map_in_main_is_the_house() {
    assert_none(map_violations(&read("src/main.rs"), &rust_files("src").into_keys().collect()));
}

#[test]
fn the_dependencies_are_the_agreed_five() {
    assert_none(dependency_violations(&read("Cargo.toml")));
}

#[test]
fn the_top_level_holds_what_was_agreed() {
    let entries = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_none(top_level_violations(&names));
}

#[test]
fn the_code_is_formatted() {
    let output =
        Command::new(env!("CARGO")).args(["fmt", "--check"]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

// Each rule finds what is planted.

mod plants {
    use super::*;

    fn strings(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_lexer_passes_over_comments_strings_and_characters() {
        let source = r###"
            // a //! b
            /* c /* d */ e */ let f = "g \" h"; let i = r#"j " k"#; let l = b"m"; let n = 'o'; let p = '\''; let q = '"';
            fn r<'s>(t: &'s str) -> u8 { b'u' }
        "###;
        let names: Vec<String> = tokens(source)
            .into_iter()
            .filter_map(|token| match token {
                Token::Name(name) if name.len() == 1 => Some(name),
                _ => None,
            })
            .collect();
        assert_eq!(names.join(""), "filnpqrsts");
    }

    #[test]
    fn items_for_tests_do_not_count() {
        let source = "use a::b;\n#[cfg(test)]\nmod testing;\n#[cfg(test)]\n#[allow(x)]\nmod tests { use c::d; fn e() { f::g() } }\nuse h::i;";
        assert_eq!(paths("src/x.rs", source), strings(&["a::b", "h::i"]));
    }

    #[test]
    fn names_are_followed_to_their_roots() {
        let source = "
            use std::{env, fs::{self, File}, process::Command as Start};
            use super::Deadline;
            use crate::wire;
            fn a() { env::var(x); fs::read(y); Start::new(z); wire::decode(b); std::net::lookup(c); File::open(d); self.e(); }
        ";
        let expected = [
            "crate::host::Deadline",
            "crate::wire",
            "crate::wire::decode",
            "std::env",
            "std::env::var",
            "std::fs",
            "std::fs::File",
            "std::fs::File::open",
            "std::fs::read",
            "std::net::lookup",
            "std::process::Command",
            "std::process::Command::new",
        ];
        assert_eq!(paths("src/host/x.rs", source), strings(&expected));
    }

    #[test]
    fn a_module_within_a_file_has_a_super_of_its_own() {
        let source = "mod inner { use super::a; fn b() { if c { super::d() } super::e::f() } } fn g() { super::h() }";
        let expected = ["crate::host::h", "crate::host::x::a", "crate::host::x::d", "crate::host::x::e::f"];
        assert_eq!(paths("src/host/x.rs", source), strings(&expected));
    }

    #[track_caller]
    fn room_finds(file: &str, source: &str, found: &str) {
        let siblings =
            ["crate::wire::mcp".to_owned(), "crate::host::process".to_owned(), "crate::tools::finish".to_owned()];
        let violations = room_violations(file, source, &siblings);
        match found {
            "" => assert!(violations.is_empty(), "{file}: {source}: {violations:?}"),
            _ => assert!(
                violations.contains(&format!("{file} must not know {found}")),
                "{file}: {source}: {violations:?}"
            ),
        }
    }

    #[test]
    fn a_room_that_knows_too_much_is_found() {
        room_finds("src/wire/openai.rs", "use std::{collections::HashMap, fs};", "std::fs");
        room_finds("src/wire/openai.rs", "fn a() { std::time::Instant::now() }", "std::time::Instant::now");
        room_finds("src/wire/openai.rs", "use crate::config::Config;", "crate::config::Config");
        room_finds("src/wire/openai.rs", "use super::mcp::Message;", "crate::wire::mcp::Message");
        room_finds("src/conversation.rs", "use crate::wire::WireFormat;", "crate::wire::WireFormat");
        room_finds("src/host/http.rs", "use crate::conversation::Turn;", "crate::conversation::Turn");
        room_finds("src/host/http.rs", "use super::process;", "crate::host::process");
        room_finds("src/host/http.rs", "use crate::{host::process::run};", "crate::host::process::run");
        room_finds("src/config/mod.rs", "fn a(b: &crate::tools::Toolbox) {}", "crate::tools::Toolbox");
        room_finds("src/model/retry.rs", "use crate::agent;", "crate::agent");
        room_finds("src/model/retry.rs", "use crate::host::workspace;", "crate::host::workspace");
        room_finds("src/tools/shell.rs", "use crate::wire::openai::encode;", "crate::wire::openai::encode");
        room_finds("src/tools/shell.rs", "use crate::model::Model;", "crate::model::Model");
        room_finds("src/outcome.rs", "use std::fs::write;", "std::fs::write");
        room_finds("src/outcome.rs", "use crate::model::Model;", "crate::model::Model");
        room_finds("src/prompt.rs", "use crate::tools::Toolbox;", "crate::tools::Toolbox");
        room_finds("src/agent.rs", "use std::process::Command;", "std::process::Command");
        room_finds("src/journal.rs", "use crate::model::Model;", "crate::model::Model");
        room_finds("src/verify.rs", "use crate::wire::decode;", "crate::wire::decode");
        assert_eq!(room_violations("src/new.rs", "", &[]), ["src/new.rs has no room in the table"]);
    }

    #[test]
    fn a_room_that_knows_what_it_may_is_left_alone() {
        room_finds(
            "src/wire/openai.rs",
            "use super::DecodeError; use crate::conversation::Turn; use serde::Deserialize;",
            "",
        );
        room_finds("src/wire/mod.rs", "mod openai; use crate::wire::openai::encode; fn a() { openai::decode() }", "");
        room_finds("src/wire/openai.rs", "#[cfg(test)] mod tests { use crate::testing; use std::fs; }", "");
        room_finds("src/host/http.rs", "use super::Deadline; use crate::host::sys; use std::net::TcpStream;", "");
        room_finds("src/host/http.rs", "use crate::host; fn a(b: host::Deadline) {}", "");
        room_finds("src/tools/shell.rs", "use super::{ToolError, finish}; use crate::host::{Deadline, process};", "");
        room_finds(
            "src/model/mod.rs",
            "mod retry; use crate::wire; use crate::host::http::Request; use retry::wait;",
            "",
        );
        room_finds(
            "src/outcome.rs",
            "use std::process::ExitCode; use std::time::Duration; use crate::model::ModelError;",
            "",
        );
        room_finds("src/agent.rs", "use crate::{model::Model, tools::Toolbox, journal};", "");
    }

    #[test]
    fn a_second_door_is_found() {
        for (file, source, found) in [
            ("src/model/mod.rs", "fn a() { ureq::get(b) }", "ureq::get"),
            ("src/tools/shell.rs", "use std::process::{Command, Stdio};", "std::process::Command"),
            (
                "src/tools/shell.rs",
                "use std::process; fn a() { process::Command::new(b) }",
                "std::process::Command::new",
            ),
            ("src/agent.rs", "fn a() { std::env::var(b) }", "std::env::var"),
            ("src/main.rs", "fn a() { std::env::var(b) }", "std::env::var"),
            ("src/main.rs", "fn a() { std::process::exit(1) }", "std::process::exit"),
            ("src/main.rs", "use env_logger::Builder;", "env_logger::Builder"),
            ("src/agent.rs", "use crate::testing::random;", "crate::testing::random"),
        ] {
            let violations = door_violations(file, source);
            assert!(violations.contains(&format!("{file} must not name {found}")), "{source}: {violations:?}");
        }
        for (file, source) in [
            ("src/host/http.rs", "use ureq::Agent;"),
            ("src/host/process.rs", "use std::process::Command;"),
            ("src/config/mod.rs", "use std::env;"),
            ("src/main.rs", "use std::env; fn a() { env::args_os(); env!(X); }"),
            ("src/main.rs", "use std::process::ExitCode;"),
            ("src/agent.rs", "// std::env::var\nconst A: &str = \"std::env::var\";"),
        ] {
            let violations: Vec<String> = door_violations(file, source);
            assert!(violations.is_empty(), "{source}: {violations:?}");
        }
    }

    #[test]
    fn a_glob_is_found() {
        let violations = glob_violations("src/host/http.rs", "use std::{fmt, process::*};");
        assert_eq!(violations, ["src/host/http.rs imports std::process::*"]);
        assert!(glob_violations("src/a.rs", "#[cfg(test)] mod tests { use super::*; }").is_empty());
    }

    #[test]
    fn unsafe_code_elsewhere_is_found() {
        assert!(!unsafe_violations("src/host/process.rs", "fn a() { unsafe { b() } }").is_empty());
        assert!(unsafe_violations(UNSAFE_FILE, "fn a() { unsafe { b() } }").is_empty());
        assert!(unsafe_violations("src/host/mod.rs", "#[allow(unsafe_code)] mod sys; // unsafe").is_empty());
    }

    #[test]
    fn left_over_macros_are_found() {
        for (file, source, count) in [
            ("src/agent.rs", "fn a() { println!(b); dbg!(c); todo!() }", 3),
            ("src/main.rs", "fn a() { println!(b); dbg!(c); todo!() }", 2),
            ("src/agent.rs", "fn a() { write!(b, c); print(d) } // println!()", 0),
        ] {
            assert_eq!(macro_violations(file, source).len(), count, "{source}");
        }
    }

    #[test]
    fn files_without_a_room_are_found() {
        assert!(!name_violations("src/utils.rs").is_empty());
        assert!(!name_violations("src/tools/helpers.rs").is_empty());
        assert!(!name_violations("src/tools/files/read.rs").is_empty());
        assert!(name_violations("src/tools/files.rs").is_empty());
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_for_is_found() {
        assert!(!opening_violations("src/a.rs", "// A.\n//! B.").is_empty());
        assert!(opening_violations("src/a.rs", "//! A.\nuse b;").is_empty());
    }

    #[test]
    fn a_testing_module_in_the_program_is_found() {
        assert!(!testing_violations("mod a;\nmod testing;\n").is_empty());
        assert!(testing_violations("mod a;\n#[cfg(test)]\nmod testing;\n").is_empty());
    }

    #[test]
    fn a_variable_in_one_place_only_is_found() {
        let config =
            "const A: &str = \"THOUGHTMESH_A\";\n#[cfg(test)]\nmod tests { const B: &str = \"THOUGHTMESH_B\"; }";
        assert_eq!(variable_violations(config, "`THOUGHTMESH_A`, `THOUGHTMESH_*`"), Vec::<String>::new());
        assert_eq!(variable_violations(config, "none"), ["README.md does not name THOUGHTMESH_A"]);
        let readme = "| `THOUGHTMESH_A` | `THOUGHTMESH_C_D` |";
        assert_eq!(variable_violations(config, readme), ["src/config/mod.rs does not name THOUGHTMESH_C_D"]);
    }

    #[test]
    fn exit_codes_that_differ_are_found() {
        let readme: String = EXIT_CODES.iter().map(|code| format!("| {code} | what it means |\n")).collect();
        let arms: String = EXIT_CODES.iter().map(|code| format!("Reason::A if b => {code},\n")).collect();
        let outcome = format!(
            "const LIMIT: usize = 4096;\nfn cut() {{ text.min(5) }}\nfn code() -> u8 {{ match a {{ {arms} }} }}"
        );
        assert_eq!(exit_code_violations(&readme, &outcome), Vec::<String>::new());
        assert_eq!(exit_code_violations(&readme.replace("| 78 |", "| 79 |"), &outcome).len(), 2);
        assert_eq!(exit_code_violations(&readme, &outcome.replace("78", "64")).len(), 2);
        assert_eq!(exit_code_violations("", &outcome).len(), EXIT_CODES.len());
    }

    #[test]
    fn a_map_that_is_not_the_house_is_found() {
        let main = "//! The front door.\n//!\n//! ```text\n//! src/\n//! ├── main.rs         the front door\n//! ├── wire/           OTHERS\n\
                    //! │   ├── mod.rs      one\n//! │   └── openai.rs   two\n//! ├── agent.rs        the loop\n//! └── host/           THE MACHINE\n\
                    //!     ├── mod.rs      three\n//!     └── sys.rs      four\n//! ```\nmod agent;\n";
        let files = [
            "src/main.rs",
            "src/wire/mod.rs",
            "src/wire/openai.rs",
            "src/agent.rs",
            "src/host/mod.rs",
            "src/host/sys.rs",
        ];
        assert_eq!(map_violations(main, &strings(&files)), Vec::<String>::new());
        assert_eq!(map_violations(main, &strings(&files[1..])).len(), 1);
        let more = [&files[..], &["src/new.rs"]].concat();
        assert_eq!(map_violations(main, &strings(&more)), ["the map in src/main.rs lacks src/new.rs"]);
    }

    #[test]
    fn a_sixth_dependency_is_found() {
        let five: String = DEPENDENCIES.iter().map(|name| format!("{name} = \"1\"\n")).collect();
        let manifest = format!(
            "[package]\nname = \"a\"\n\n[dependencies]\n# b = c\n{five}\n[dev-dependencies]\ntempfile = \"3\"\n"
        );
        assert_eq!(dependency_violations(&manifest), Vec::<String>::new());
        assert_eq!(dependency_violations(&manifest.replace("log =", "tokio = \"1\"\nlog =")).len(), 1);
        assert_eq!(dependency_violations(&manifest.replace("ureq =", "#")).len(), 1);
        assert_eq!(dependency_violations(&format!("{manifest}\n[dependencies.tokio]\n")).len(), 1);
    }

    #[test]
    fn a_new_entry_of_the_top_level_is_found() {
        assert_eq!(top_level_violations(&strings(&["src", "tests", "scripts"])).len(), 1);
        assert!(top_level_violations(&strings(TOP_LEVEL)).is_empty());
    }
}
