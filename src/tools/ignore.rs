//! `.gitignore`, its common forms: names, `*.ext`, `/anchored`, `directory/`, `a/**/b`, `!but not`. Pure, on paths as text.
//!
//! A line that is not understood ignores nothing.

use super::glob::Glob;

/// Lines of one file that are read; the largest in use have a tenth of it.
const RULES_MAX: usize = 1_000;

/// The rules of the directories that lead to where a walk is.
#[derive(Debug, Default)]
pub struct Ignored {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// The directory of the file, with a slash at its end; empty for the start.
    base: String,
    form: Form,
    is_exception: bool,
    only_directories: bool,
}

#[derive(Debug)]
enum Form {
    /// This name, at any depth. The most common one, and fast.
    Name(String),
    /// A name with this end, at any depth.
    Ending(String),
    /// A path that counts from the base.
    Path(Glob),
    /// A name directly in the base.
    Here(Glob),
    /// A name at any depth.
    Anywhere(Glob),
}

impl Ignored {
    /// Forgets the rules of directories that do not lead to `directory` and adds the lines of its own file.
    pub fn enter(&mut self, directory: &str, lines: &str) {
        let base = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        self.rules.retain(|rule| base.starts_with(&rule.base) && rule.base != base);
        self.rules.extend(lines.lines().take(RULES_MAX).filter_map(|line| Rule::parse(&base, line)));
    }

    /// Whether `path` is ignored; the last rule that fits decides.
    pub fn covers(&self, path: &str, is_directory: bool) -> bool {
        let fits = |rule: &&Rule| (is_directory || !rule.only_directories) && rule.fits(path);
        self.rules.iter().rev().find(fits).is_some_and(|rule| !rule.is_exception)
    }
}

impl Rule {
    fn parse(base: &str, line: &str) -> Option<Rule> {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (is_exception, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let (only_directories, line) = line.strip_suffix('/').map_or((false, line), |rest| (true, rest));
        let is_plain = |text: &str| !text.contains(['*', '?', '[', '\\', '/']);
        let form = match line.strip_prefix('/') {
            Some(anchored) if !anchored.contains('/') => Form::Here(Glob::parse(anchored).ok()?),
            Some(anchored) => Form::Path(Glob::parse(anchored).ok()?),
            None if is_plain(line) => Form::Name(line.to_owned()),
            None if line.strip_prefix('*').is_some_and(is_plain) => {
                Form::Ending(line.trim_start_matches('*').to_owned())
            }
            None if line.contains('/') => Form::Path(Glob::parse(line).ok()?),
            None => Form::Anywhere(Glob::parse(line).ok()?),
        };
        Some(Rule { base: base.to_owned(), form, is_exception, only_directories })
    }

    fn fits(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix(&self.base) else { return false };
        let name = path.rsplit('/').next().unwrap_or(path);
        match &self.form {
            Form::Name(wanted) => name == wanted,
            Form::Ending(end) => name.ends_with(end.as_str()),
            Form::Path(glob) => glob.matches(path),
            Form::Here(glob) => name == path && glob.matches(path),
            Form::Anywhere(glob) => glob.matches(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_forms_are_understood() {
        let mut ignored = Ignored::default();
        ignored
            .enter("", "# note\n\ntarget/\n*.log\n/build\n!keep.log\ndocs/**/*.pdf\nfoo/bar\n[ab].txt\nnode_modules\n");
        for (path, is_directory) in [
            ("target", true),
            ("a/target", true),
            ("x.log", false),
            ("a/b/x.log", false),
            ("build", false),
            ("docs/a/b.pdf", false),
            ("foo/bar", false),
            ("a.txt", false),
            ("q/b.txt", false),
            ("a/node_modules", true),
        ] {
            assert!(ignored.covers(path, is_directory), "{path}");
        }
        for (path, is_directory) in [
            ("target", false),
            ("keep.log", false),
            ("a/build", false),
            ("x/foo/bar", false),
            ("c.txt", false),
            ("log", false),
        ] {
            assert!(!ignored.covers(path, is_directory), "{path}");
        }
    }

    #[test]
    fn rules_count_beneath_their_directory_only() {
        let mut ignored = Ignored::default();
        ignored.enter("", "*.a\n");
        ignored.enter("x", "*.b\n!y.a\n");
        assert!(ignored.covers("x/1.b", false) && ignored.covers("x/1.a", false) && !ignored.covers("x/y.a", false));
        ignored.enter("z", "");
        assert!(!ignored.covers("z/1.b", false) && ignored.covers("z/y.a", false));
    }
}
