//! Numbers about one source file: lines by kind, functions with their branches, depth and loops. Pure.
//!
//! Nothing is parsed. A small reader takes comments and texts out of each line, and what is left is followed by braces, or by
//! indentation in Python. That is an honest approximation: a macro, a template or an unusual layout can mislead it, and then
//! a number is off by a little; it never fails. What may surprise: a text of several lines counts as code, a docstring as a
//! comment.

use crate::sort;

/// Words, braces and signs of a language, as far as they are needed here.
#[derive(Debug, PartialEq)]
pub struct Language {
    pub name: &'static str,
    extensions: &'static [&'static str],
    line_comments: &'static [&'static str],
    block_comment: Option<(&'static str, &'static str)>,
    /// A quote that ends only where it is closed, on any line.
    long_quotes: &'static [&'static str],
    /// `'` begins a text, and not a single character or a lifetime.
    has_single_quotes: bool,
    /// Texts in `"` may go on over lines.
    has_long_texts: bool,
    shape: Shape,
    /// The word before a function's name; without one, a name before `(…) {` is it.
    function_word: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Braces,
    Indentation,
    /// Only lines are counted.
    Lines,
}

const C_COMMENT: Option<(&str, &str)> = Some(("/*", "*/"));
const C_LIKE: Language = Language {
    name: "C",
    extensions: &["c", "h"],
    line_comments: &["//"],
    block_comment: C_COMMENT,
    long_quotes: &[],
    has_single_quotes: false,
    has_long_texts: false,
    shape: Shape::Braces,
    function_word: "",
};
const LINES: Language = Language {
    name: "YAML",
    extensions: &["yaml", "yml"],
    line_comments: &["#"],
    block_comment: None,
    shape: Shape::Lines,
    ..C_LIKE
};

const LANGUAGES: [Language; 18] = [
    Language { name: "Rust", extensions: &["rs"], has_long_texts: true, function_word: "fn", ..C_LIKE },
    Language { name: "Go", extensions: &["go"], long_quotes: &["`"], function_word: "func", ..C_LIKE },
    Language {
        name: "Python",
        extensions: &["py", "pyi"],
        line_comments: &["#"],
        block_comment: None,
        long_quotes: &["\"\"\"", "'''"],
        has_single_quotes: true,
        shape: Shape::Indentation,
        function_word: "def",
        ..C_LIKE
    },
    Language {
        name: "JavaScript",
        extensions: &["js", "jsx", "mjs", "cjs"],
        long_quotes: &["`"],
        has_single_quotes: true,
        function_word: "function",
        ..C_LIKE
    },
    Language {
        name: "TypeScript",
        extensions: &["ts", "tsx", "mts", "cts"],
        long_quotes: &["`"],
        has_single_quotes: true,
        function_word: "function",
        ..C_LIKE
    },
    Language { name: "Java", extensions: &["java"], long_quotes: &["\"\"\""], ..C_LIKE },
    Language { name: "Kotlin", extensions: &["kt", "kts"], long_quotes: &["\"\"\""], function_word: "fun", ..C_LIKE },
    Language { name: "C#", extensions: &["cs"], ..C_LIKE },
    Language { name: "Swift", extensions: &["swift"], long_quotes: &["\"\"\""], function_word: "func", ..C_LIKE },
    C_LIKE,
    Language { name: "C++", extensions: &["cc", "cpp", "cxx", "hh", "hpp", "hxx"], ..C_LIKE },
    Language {
        name: "PHP",
        extensions: &["php"],
        line_comments: &["//", "#"],
        has_single_quotes: true,
        has_long_texts: true,
        function_word: "function",
        ..C_LIKE
    },
    Language {
        name: "shell",
        extensions: &["sh", "bash"],
        line_comments: &["#"],
        block_comment: None,
        has_single_quotes: true,
        has_long_texts: true,
        ..C_LIKE
    },
    LINES,
    Language { name: "TOML", extensions: &["toml"], ..LINES },
    Language { name: "Ruby", extensions: &["rb"], has_single_quotes: true, ..LINES },
    Language { name: "SQL", extensions: &["sql"], line_comments: &["--"], block_comment: C_COMMENT, ..LINES },
    Language { name: "Markdown", extensions: &["md"], line_comments: &[], has_single_quotes: false, ..LINES },
];

impl Language {
    /// By the end of a file's name, or by its first line where that names an interpreter.
    pub fn of(name: &str, first_line: &str) -> Option<&'static Language> {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        let by_name = extension.and_then(|end| LANGUAGES.iter().find(|language| language.extensions.contains(&end)));
        by_name.or_else(|| {
            let interpreter = first_line.strip_prefix("#!")?;
            let wanted = if interpreter.contains("python") { "Python" } else { "shell" };
            let is_known = wanted == "Python" || interpreter.ends_with("sh");
            LANGUAGES.iter().find(|language| is_known && language.name == wanted)
        })
    }
}

/// Lines by what is on them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lines {
    pub code: usize,
    pub comments: usize,
    pub blanks: usize,
}

/// A function, as it seems.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    pub name: String,
    /// Counted from 1.
    pub line: usize,
    pub lines: usize,
    pub branches: usize,
    /// Blocks within blocks, the function's own not counted.
    pub nesting: usize,
    /// Loops within loops.
    pub loops: usize,
}

/// Everything about one file.
#[derive(Debug, Default, PartialEq)]
pub struct Metrics {
    pub lines: Lines,
    pub functions: Vec<Function>,
    /// Number, from 1, and text of each line of code without comments and outer space; for finding repeated blocks.
    pub code: Vec<(usize, u64)>,
}

/// Looks at a whole file.
pub fn measure(language: &'static Language, text: &str) -> Metrics {
    let mut metrics = Metrics::default();
    let mut reader = LineReader { language, state: State::Code };
    let mut follower = Follower::new(language);
    let mut clean = String::new();
    for (index, line) in text.lines().enumerate() {
        match reader.read(line, &mut clean) {
            LineKind::Blank => metrics.lines.blanks += 1,
            LineKind::Comment => metrics.lines.comments += 1,
            LineKind::Code => {
                metrics.lines.code += 1;
                // Of the line as it stands: two calls with other texts are no repetition.
                metrics.code.push((index + 1, hash(line.trim())));
                follower.line(index + 1, &clean);
            }
        }
    }
    metrics.functions = follower.finish(text.lines().count());
    metrics
}

/// FNV-1a: equal lines are looked for, and nobody attacks it.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[derive(PartialEq)]
enum LineKind {
    Blank,
    Comment,
    Code,
}

/// Takes comments and texts out of lines.
struct LineReader {
    language: &'static Language,
    state: State,
}

#[derive(Clone, PartialEq)]
enum State {
    Code,
    Comment,
    /// In a text that ends with this; whether `\` escapes in it, and whether it goes on in the next line.
    Text {
        end: String,
        escapes: bool,
        is_long: bool,
        is_docstring: bool,
    },
}

impl LineReader {
    /// Leaves in `clean` what is neither comment nor text.
    fn read(&mut self, line: &str, clean: &mut String) -> LineKind {
        clean.clear();
        let mut has_text = false;
        let is_comment_at_start = self.state != State::Code;
        let mut rest = line;
        while !rest.is_empty() {
            rest = match &self.state {
                State::Code => match self.read_code(rest, clean) {
                    Some(rest) => rest,
                    None => break,
                },
                State::Comment => match rest.split_once(self.language.block_comment.map_or("", |(_, end)| end)) {
                    Some((_, after)) => {
                        self.state = State::Code;
                        after
                    }
                    None => break,
                },
                State::Text { end, escapes, is_docstring, .. } => {
                    has_text |= !is_docstring;
                    match after_text(rest, end, *escapes) {
                        Some(after) => {
                            self.state = State::Code;
                            after
                        }
                        None => break,
                    }
                }
            };
        }
        if let State::Text { is_long: false, .. } = self.state {
            self.state = State::Code;
        }
        match () {
            () if has_text || !clean.trim().is_empty() => LineKind::Code,
            () if line.trim().is_empty() && !is_comment_at_start => LineKind::Blank,
            () if line.trim().is_empty() => LineKind::Blank,
            () => LineKind::Comment,
        }
    }

    /// Reads on from `rest` until something else begins; `None` when the line is over.
    fn read_code<'a>(&mut self, rest: &'a str, clean: &mut String) -> Option<&'a str> {
        let language = self.language;
        for (at, character) in rest.char_indices() {
            let here = rest.get(at..)?;
            let before = clean.chars().next_back();
            let is_word_before = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
            if character.is_alphanumeric() || character == ' ' {
                if character == 'r' && language.name == "Rust" && !is_word_before {
                    let hashes = here.chars().skip(1).take_while(|c| *c == '#').count();
                    if here.get(1 + hashes..).is_some_and(|after| after.starts_with('"')) {
                        let end = format!("\"{}", "#".repeat(hashes));
                        self.state = State::Text { end, escapes: false, is_long: true, is_docstring: false };
                        clean.push('"');
                        return here.get(2 + hashes..);
                    }
                }
                clean.push(character);
                continue;
            }
            // In a shell `#` in a word is no comment: `$#`, `${x#y}`.
            let may_be_comment = character != '#' || before.is_none_or(char::is_whitespace);
            if may_be_comment && language.line_comments.iter().any(|mark| here.starts_with(mark)) {
                return None;
            }
            if let Some((start, _)) = language.block_comment.filter(|(start, _)| here.starts_with(start)) {
                self.state = State::Comment;
                return here.get(start.len()..);
            }
            if let Some(quote) = language.long_quotes.iter().find(|quote| here.starts_with(**quote)) {
                let is_docstring = quote.len() == 3 && clean.trim().is_empty();
                self.state = State::Text {
                    end: (*quote).to_owned(),
                    escapes: *quote != "`" || language.name != "Go",
                    is_long: true,
                    is_docstring,
                };
                if !is_docstring {
                    clean.push('"');
                }
                return here.get(quote.len()..);
            }
            if character == '"' || character == '\'' && language.has_single_quotes && language.shape != Shape::Lines {
                let escapes = character == '"' || language.name != "shell";
                let is_long = language.has_long_texts;
                self.state = State::Text { end: character.to_string(), escapes, is_long, is_docstring: false };
                clean.push('"');
                return here.get(1..);
            }
            let literal = Some(here).filter(|_| character == '\'' && !language.has_single_quotes);
            if let Some(after) = literal.and_then(after_character) {
                clean.push('"');
                return Some(after);
            }
            clean.push(character);
        }
        None
    }
}

/// What follows a text that ends with `end`.
fn after_text<'a>(rest: &'a str, end: &str, escapes: bool) -> Option<&'a str> {
    let mut at = 0;
    loop {
        let here = rest.get(at..)?;
        let next = here.find(|c| c == '\\' && escapes || end.starts_with(c))?;
        let here = here.get(next..)?;
        if let Some(after) = here.strip_prefix(end) {
            return Some(after);
        }
        let escaped = here.chars().nth(1).map_or(0, char::len_utf8);
        at += next + if here.starts_with('\\') { 1 + escaped } else { 1 };
    }
}

/// What follows a literal such as `'x'` or `'\n'`; not after a lifetime.
fn after_character(here: &str) -> Option<&str> {
    let mut characters = here.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        let (end, _) = characters.skip(1).find(|(_, c)| *c == '\'')?;
        return here.get(end + 1..);
    }
    let (end, second) = characters.next()?;
    (second == '\'').then(|| here.get(end + 1..)).flatten()
}

/// Follows blocks from line to line and finds functions.
struct Follower {
    language: &'static Language,
    /// Blocks that are open.
    blocks: Vec<Block>,
    done: Vec<Function>,
    parentheses: usize,
    /// The name that a function has if a block begins now, and its line.
    header: Option<(String, usize)>,
    /// The next word is a function's name.
    wants_name: bool,
    loop_is_next: bool,
    last_word: String,
    /// The word before the last `=`.
    assigned: String,
}

struct Block {
    indentation: usize,
    is_loop: bool,
    function: Option<Function>,
}

const LOOPS: [&str; 5] = ["for", "while", "loop", "until", "foreach"];
const BRANCHES: [&str; 10] = ["if", "elif", "case", "catch", "except", "when", "elseif", "guard", "select", "unless"];
/// What stands before `(` without being a function.
const NO_NAMES: [&str; 14] = [
    "if",
    "for",
    "while",
    "switch",
    "catch",
    "return",
    "sizeof",
    "match",
    "foreach",
    "synchronized",
    "using",
    "lock",
    "else",
    "do",
];

impl Follower {
    fn new(language: &'static Language) -> Follower {
        Follower {
            language,
            blocks: Vec::new(),
            done: Vec::new(),
            parentheses: 0,
            header: None,
            wants_name: false,
            loop_is_next: false,
            last_word: String::new(),
            assigned: String::new(),
        }
    }

    fn line(&mut self, number: usize, clean: &str) {
        match self.language.shape {
            Shape::Lines => {}
            Shape::Indentation => self.line_by_indentation(number, clean),
            Shape::Braces => self.line_by_braces(number, clean),
        }
    }

    fn finish(mut self, last_line: usize) -> Vec<Function> {
        while !self.blocks.is_empty() {
            self.close(last_line);
        }
        sort::by_key(self.done, |function| function.line as u64)
    }

    fn line_by_indentation(&mut self, number: usize, clean: &str) {
        let text = clean.trim_start();
        if self.parentheses == 0 {
            let indentation = clean.len() - text.len();
            while self.blocks.last().is_some_and(|block| block.indentation >= indentation) {
                self.close(number - 1);
            }
            let text = text.strip_prefix("async ").unwrap_or(text);
            let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').take(2).collect();
            let (first, second) = (words.first().copied().unwrap_or(""), words.get(1).copied().unwrap_or(""));
            let is_block = matches!(
                first,
                "def"
                    | "class"
                    | "if"
                    | "elif"
                    | "else"
                    | "for"
                    | "while"
                    | "try"
                    | "except"
                    | "with"
                    | "finally"
                    | "match"
                    | "case"
            );
            if is_block {
                let function = (first == "def").then(|| (second.to_owned(), number));
                self.open(indentation, LOOPS.contains(&first), function);
            }
        }
        for word in clean.split(|c: char| !c.is_alphanumeric() && c != '_') {
            if LOOPS.contains(&word) || BRANCHES.contains(&word) || word == "and" || word == "or" {
                self.branch();
            }
        }
        let opened = clean.matches(['(', '[', '{']).count();
        self.parentheses = (self.parentheses + opened).saturating_sub(clean.matches([')', ']', '}']).count());
    }

    fn line_by_braces(&mut self, number: usize, clean: &str) {
        let is_implementation = clean.trim_start().starts_with("impl") || clean.trim_start().starts_with("unsafe impl");
        let mut rest = clean;
        while let Some(first) = rest.chars().next() {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(rest.len());
            if length > 0 {
                let (word, after) = rest.split_at(length);
                // `impl Trait for Type`, `for<'a>`.
                if !(word == "for" && (is_implementation || after.starts_with('<'))) {
                    self.word(word, number);
                }
                rest = after;
                continue;
            }
            if rest.starts_with("&&") || rest.starts_with("||") {
                self.branch();
                rest = rest.get(2..).unwrap_or_default();
                continue;
            }
            if rest.starts_with("=>") {
                // A match arm, or a function without a name of its own.
                match self.language.function_word {
                    "fn" => self.branch(),
                    _ if !self.assigned.is_empty() => self.header = Some((self.assigned.clone(), number)),
                    _ => {}
                }
                rest = rest.get(2..).unwrap_or_default();
                continue;
            }
            self.sign(first, number);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }

    fn word(&mut self, word: &str, number: usize) {
        let is_shell = self.language.name == "shell";
        if NO_NAMES.contains(&word) || word == "class" {
            // What stands before it was a call and no function's header.
            self.header = None;
        }
        match word {
            _ if self.wants_name && self.parentheses == 0 => {
                self.header = Some((word.to_owned(), number));
                self.wants_name = false;
            }
            _ if word == self.language.function_word || is_shell && word == "function" => self.wants_name = true,
            "do" | "then" if is_shell => self.open_here(),
            "done" | "fi" if is_shell => self.close(number),
            _ if LOOPS.contains(&word) => {
                self.branch();
                self.loop_is_next = true;
            }
            _ if BRANCHES.contains(&word) => self.branch(),
            _ => {}
        }
        self.last_word.clear();
        self.last_word.push_str(word);
    }

    fn sign(&mut self, sign: char, number: usize) {
        match sign {
            '(' => {
                let in_function = self.blocks.iter().any(|block| block.function.is_some());
                // A receiver in Go: the name follows it. Elsewhere a function without a name.
                self.wants_name &= self.language.name == "Go" && !in_function;
                let may_be_name = match self.language.function_word {
                    "" => !in_function || self.language.name == "shell",
                    "function" => true,
                    _ => false,
                };
                let is_name = !self.last_word.is_empty() && !NO_NAMES.contains(&self.last_word.as_str());
                if self.parentheses == 0 && may_be_name && is_name && self.header.is_none() && !self.wants_name {
                    self.header = Some((self.last_word.clone(), number));
                }
                self.parentheses += 1;
            }
            ')' => self.parentheses = self.parentheses.saturating_sub(1),
            '{' => self.open_here(),
            '}' => {
                self.close(number);
                self.forget();
            }
            ';' if self.language.name == "shell" => self.header = None,
            ';' if self.parentheses == 0 => self.forget(),
            '=' if self.parentheses == 0 => {
                self.assigned = self.last_word.clone();
                // An initial value is no function's body.
                if self.language.function_word.is_empty() || self.language.function_word == "function" {
                    self.header = None;
                }
            }
            '?' if self.language.name != "Rust" => self.branch(),
            _ => {}
        }
        if !matches!(sign, ' ' | '\t' | '<' | '>') {
            self.last_word.clear();
        }
    }

    fn open_here(&mut self) {
        // A call with a block in its arguments is no function of the call's name.
        let header = self.header.take().filter(|_| self.parentheses == 0 || self.language.function_word == "function");
        let is_loop = std::mem::take(&mut self.loop_is_next);
        let header = header.filter(|(name, _)| !is_loop && !LOOPS.contains(&name.as_str()));
        self.open(0, is_loop, header);
        self.forget();
    }

    fn forget(&mut self) {
        self.header = None;
        self.wants_name = false;
        self.loop_is_next = false;
        self.assigned.clear();
    }

    fn open(&mut self, indentation: usize, is_loop: bool, function: Option<(String, usize)>) {
        let function = function.map(|(name, line)| Function { name, line, ..Function::default() });
        self.blocks.push(Block { indentation, is_loop, function });
        let Some(owner) = self.blocks.iter().rposition(|block| block.function.is_some()) else { return };
        let nesting = self.blocks.len() - 1 - owner;
        let loops = self.blocks.iter().skip(owner).filter(|block| block.is_loop).count();
        if let Some(function) = self.blocks.get_mut(owner).and_then(|block| block.function.as_mut()) {
            function.nesting = function.nesting.max(nesting);
            function.loops = function.loops.max(loops);
        }
    }

    fn close(&mut self, number: usize) {
        if let Some(mut function) = self.blocks.pop().and_then(|block| block.function) {
            function.lines = (number + 1).saturating_sub(function.line);
            self.done.push(function);
        }
        self.loop_is_next = false;
    }

    fn branch(&mut self) {
        if let Some(function) = self.blocks.iter_mut().rev().find_map(|block| block.function.as_mut()) {
            function.branches += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, check_property};

    fn of(name: &str, text: &str) -> Metrics {
        measure(Language::of(name, "").unwrap(), text)
    }

    #[track_caller]
    fn has(name: &str, text: &str, expected: &[(&str, usize, usize, usize, usize, usize)]) {
        let found = of(name, text).functions;
        let found: Vec<_> =
            found.iter().map(|f| (f.name.as_str(), f.line, f.lines, f.branches, f.nesting, f.loops)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_are_told_apart() {
        let rust =
            "// a\n\nfn f() { /* b */ }\n/* c\n\nd */ x();\nlet s = \"// no\n\nstill\";\nlet t = r#\"\" /* \"#; // e\n";
        assert_eq!(of("a.rs", rust).lines, Lines { code: 5, comments: 2, blanks: 3 });
        let python = "# a\ndef f():\n    \"\"\"b\n    c\"\"\"\n    x = '# no'  # d\n\n";
        assert_eq!(of("a.py", python).lines, Lines { code: 2, comments: 3, blanks: 1 });
        assert_eq!(of("a.yaml", "# a\nb: c # d\n\n").lines, Lines { code: 1, comments: 1, blanks: 1 });
        assert_eq!(of("a.sh", "#!/bin/sh\necho $# ${x#y} # z\n").lines, Lines { code: 1, comments: 1, blanks: 0 });
        assert_eq!(of("a.c", "char c = '\"'; // x\nchar *d = \"\\\"/*\";\nint e;\n").lines.code, 3);
    }

    #[test]
    fn functions_of_rust() {
        let text = "impl A for B {\n    fn one<'a>(x: &'a str) -> u8 {\n        for i in x {\n            while i { if a && b {} }\n        }\n    }\n}\n\
                    trait T { fn two(); }\nfn three() { match x { 1 => 2, _ => 3 } }\n";
        has("a.rs", text, &[("one", 2, 5, 4, 3, 2), ("three", 9, 1, 2, 1, 0)]);
    }

    #[test]
    fn functions_of_python() {
        let text = "class A:\n    def one(self, b=(\n            1)):\n        for i in x:\n            for j in y:\n                if i and j:\n                    pass\n\n    async def two(self):\n        return 1\nx = 1\n";
        has("a.py", text, &[("one", 2, 7, 4, 3, 2), ("two", 9, 2, 0, 0, 0)]);
    }

    #[test]
    fn functions_of_go() {
        let text = "func (s *Server) One(a int) error {\n\tfor {\n\t\tif a > 1 {\n\t\t}\n\t}\n}\nfunc two() { x := func() {} }\n";
        has("a.go", text, &[("One", 1, 6, 2, 2, 1), ("two", 7, 1, 0, 1, 0)]);
    }

    #[test]
    fn functions_of_javascript() {
        let text = "function one(a) { return a ? 1 : 2 }\nconst two = async (a) => {\n  for (const x of a) { if (x) { y() } }\n}\nclass A {\n  three(b) {\n    while (b) {}\n  }\n}\n";
        has("a.ts", text, &[("one", 1, 1, 1, 0, 0), ("two", 2, 3, 2, 2, 1), ("three", 6, 3, 1, 1, 1)]);
    }

    #[test]
    fn functions_of_java_and_c() {
        let java = "class A {\n  @Override\n  public int one(int a) throws X {\n    for (int i = 0; i < a; i++) {\n      for (;;) { if (x || y) {} }\n    }\n  }\n  int b = c(1);\n}\n";
        has("A.java", java, &[("one", 3, 5, 4, 3, 2)]);
        let c = "int declared(int a);\nstatic int\nmain(int argc, char **argv)\n{\n  switch (a) { case 1: break; }\n  return f(a);\n}\nint table[] = { 1, 2 };\n";
        has("a.c", c, &[("main", 3, 5, 1, 1, 0)]);
        has("a.cpp", "void A::one() const {\n}\n", &[("one", 1, 2, 0, 0, 0)]);
    }

    #[test]
    fn functions_of_the_shell() {
        let text =
            "one() {\n  for x in a; do\n    while true; do if y; then z; fi; done\n  done\n}\nfunction two { echo; }\n";
        has("a.sh", text, &[("one", 1, 5, 3, 3, 2), ("two", 6, 1, 0, 0, 0)]);
    }

    #[test]
    fn languages_are_known_by_name_or_first_line() {
        let name = |file: &str, line: &str| Language::of(file, line).map(|language| language.name);
        assert_eq!(name("a.tsx", ""), Some("TypeScript"));
        assert_eq!(name("run", "#!/usr/bin/env bash"), Some("shell"));
        assert_eq!(name("run", "#!/usr/bin/python3"), Some("Python"));
        assert_eq!((name("LICENSE", "text"), name("a.bin", ""), name("x", "#!/usr/bin/perl")), (None, None, None));
    }

    #[test]
    fn no_text_makes_it_fail() {
        const PIECES: [&str; 24] = [
            "{", "}", "(", ")", "\"", "'", "`", "\\", "/*", "*/", "//", "#", "\n", "r#\"", "\"\"\"", "fn ", "for ",
            "def ", "é", "=>", "=", ";", "if ", "  ",
        ];
        check_property(2_000, |random: &mut Random| {
            let text: String = (0..random.below(60)).map(|_| random.pick(&PIECES)).collect();
            for language in &LANGUAGES {
                let metrics = measure(language, &text);
                let lines = metrics.lines;
                assert_eq!(lines.code + lines.comments + lines.blanks, text.lines().count());
                assert!(metrics.functions.iter().all(|f| f.line + f.lines <= text.lines().count() + 1));
            }
        });
    }
}
