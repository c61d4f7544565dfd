//! The tool `git`: look at history and record it, and nothing else that git can be talked into.
//!
//! The repository is as little trusted as the model: both can hold names of programs. So each subcommand has a list of
//! options, everything else is refused (git accepts abbreviations, so a list of forbidden ones would have holes); hooks,
//! editor, pager, signing and protocols are set from outside; and the repository's own configuration is looked through
//! before each call: filters in it are emptied, helpers for credentials refuse the network.
//!
//! What may surprise: git directory and work tree must lie in the workspace, because `.git` can be a file that names another
//! place, and so can `core.worktree`. Repositories of another owner are fine: a mounted volume often has one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::ToolError;
use super::child::{self, Program, Surroundings};
use super::schema;
use crate::config::options::GitOptions;
use crate::conversation::ToolSpec;
use crate::host::process;
use crate::host::workspace::Workspace;
use crate::secret::Secrets;
use crate::sort;

pub const NAME: &str = "git";

/// The first version that takes `safe.directory` from its environment (release notes of 2.38, October 2022).
const VERSION_MIN: (u32, u32) = (2, 38);
/// Limit on asking git about itself or the repository.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of such an answer is read, enough for the names of 200,000 files; a repository beyond it is refused.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Submodules in one repository, and how deep in each other; each costs two questions.
const SUBMODULES_MAX: usize = 64;
const SUBMODULE_DEPTH_MAX: usize = 4;
/// Commits that [`Git::churn`] looks at.
const CHURN_COMMITS_MAX: u32 = 2_000;

/// A git that is there, and what it may do.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
    options: GitOptions,
}

/// What was found in configurations.
struct Found {
    settings: Vec<(String, String)>,
    /// Somebody has said who commits.
    has_identity: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Need {
    Nothing,
    Write,
    Network,
}

/// One subcommand: what it needs, what is always said to it, and the options that it may be given.
struct Subcommand {
    name: &'static str,
    need: Need,
    always: &'static str,
    /// Exactly these, separated by spaces; one that ends in `=` with any value.
    flags: &'static str,
    /// Their value is the next argument, whatever it looks like.
    valued: &'static str,
}

const DIFF: &str = "--cached --staged --stat --numstat --shortstat --name-only --name-status --summary --raw --patch -p \
            -w -b --ignore-all-space --ignore-space-change --check -M -C -R --find-renames --no-renames \
            --diff-filter= --unified= -U0 -U1 -U3 -U5 -U10 -W --function-context --merge-base --word-diff --minimal \
            --histogram --no-color --";
const LOG: &str = "--oneline --graph --all --branches --tags --remotes --decorate --merges --no-merges --first-parent \
            --reverse --follow --date= --since= --until= --after= --before= --author= --committer= --grep= -i \
            --format= --pretty= --max-count= --skip= --abbrev-commit --no-patch -s --date-order --topo-order \
            --full-history --left-right --stat --numstat --shortstat --name-only --name-status --summary --patch \
            -p -w -M --find-renames --diff-filter= --unified= -U0 -U3 -U10 -m --no-color --";
const NO_PROGRAMS: &str = "--no-ext-diff --no-textconv --ignore-submodules=all";

const SUBCOMMANDS: [Subcommand; 14] = [
    Subcommand {
        name: "status",
        need: Need::Nothing,
        always: "--ignore-submodules=all",
        flags: "--short -s --branch -b -sb --porcelain --long --ignored --untracked-files= -uno -uall --",
        valued: "",
    },
    Subcommand { name: "diff", need: Need::Nothing, always: NO_PROGRAMS, flags: DIFF, valued: "-S -G" },
    Subcommand { name: "log", need: Need::Nothing, always: NO_PROGRAMS, flags: LOG, valued: "-n -S -G -L" },
    Subcommand { name: "show", need: Need::Nothing, always: NO_PROGRAMS, flags: LOG, valued: "-S -G" },
    Subcommand {
        name: "blame",
        need: Need::Nothing,
        always: "--no-textconv",
        flags: "-w -M -C -e --show-email -l -s -t --date= --since= --porcelain --line-porcelain --",
        valued: "-L",
    },
    Subcommand {
        name: "branch",
        need: Need::Nothing,
        always: "",
        flags: "--list -a --all -r --remotes -v -vv --verbose --show-current --contains --no-contains --merged \
            --no-merged --sort= --format=",
        valued: "",
    },
    Subcommand {
        name: "add",
        need: Need::Write,
        always: "",
        flags: "--all -A --update -u --intent-to-add -N --verbose -v --dry-run -n --",
        valued: "",
    },
    Subcommand {
        name: "commit",
        need: Need::Write,
        always: "--no-verify --no-gpg-sign",
        flags: "--message= --all -a --amend --no-edit --allow-empty --quiet -q --author= --date= --signoff -s \
            --dry-run --",
        valued: "-m -am --message",
    },
    Subcommand { name: "checkout", need: Need::Write, always: "", flags: "--", valued: "" },
    Subcommand {
        name: "restore",
        need: Need::Write,
        always: "",
        flags: "--staged -S --worktree -W --source= --",
        valued: "-s --source",
    },
    // Quiet: else it lists local changes, and asks submodules for theirs.
    Subcommand { name: "switch", need: Need::Write, always: "--quiet", flags: "--detach", valued: "-c --create" },
    Subcommand {
        name: "clone",
        need: Need::Network,
        always: "--no-recurse-submodules",
        flags: "--depth= --branch= --single-branch --no-tags --quiet -q",
        valued: "-b --branch --depth",
    },
    Subcommand {
        name: "fetch",
        need: Need::Network,
        always: "--no-recurse-submodules",
        flags: "--all --prune -p --tags --no-tags --depth= --unshallow --dry-run --quiet -q",
        valued: "--depth",
    },
    Subcommand {
        name: "push",
        need: Need::Network,
        always: "--recurse-submodules=no --no-verify",
        flags: "--set-upstream -u --tags --dry-run -n --quiet -q",
        valued: "",
    },
];

impl Git {
    /// Finds git and asks for its version. Fails with what is missing, worded for the person.
    pub fn probe(options: GitOptions, path: &OsStr, surroundings: &Surroundings) -> Result<Git, String> {
        let program = process::find_program(OsStr::new("git"), path)
            .ok_or("there is no `git` in PATH, use an image that has it or leave this tool out")?;
        let git = Git { program, options };
        let answer = git.ask(&["--version"], surroundings).map_err(|error| format!("git --version: {error}"))?;
        let numbers = answer.trim().trim_start_matches("git version ").split('.').map(|word| word.parse().unwrap_or(0));
        match numbers.collect::<Vec<u32>>()[..] {
            [major, minor, ..] if (major, minor) >= VERSION_MIN => Ok(git),
            _ => Err(format!("this git is too old, version {}.{} or later is needed", VERSION_MIN.0, VERSION_MIN.1)),
        }
    }

    /// The tool as the model sees it: only the subcommands that it may use.
    pub fn spec(&self) -> ToolSpec {
        let names: Vec<&str> = self.allowed().map(|subcommand| subcommand.name).collect();
        ToolSpec {
            name: NAME.to_owned(),
            description: "Run a git subcommand on the repository in the workspace. Each argument is one string, no shell \
                          sees it. The usual options are accepted, others are refused with a list of the accepted ones. \
                          There is no editor: commit needs -m. checkout restores paths only: [\"--\", \"path\"] or \
                          [\"commit\", \"--\", \"path\"]."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "subcommand": {"type": "string", "enum": names, "description": "What to do."},
                    "arguments": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "What follows the subcommand, such as [\"--oneline\", \"-n\", \"20\", \"--\", \"src\"].",
                    },
                    "directory": {
                        "type": "string",
                        "description": "The directory to run in, relative to the workspace. Default: the workspace.",
                    },
                },
                "required": ["subcommand"],
                "additionalProperties": false,
            }),
        }
    }

    fn allowed(&self) -> impl Iterator<Item = &'static Subcommand> {
        SUBCOMMANDS.iter().filter(|subcommand| match subcommand.need {
            Need::Nothing => true,
            Need::Write => self.options.allow_write,
            Need::Network => self.options.allow_network,
        })
    }

    pub fn run(
        &self,
        arguments: &Map<String, Value>,
        workspace: &Workspace,
        surroundings: &Surroundings,
    ) -> Result<String, ToolError> {
        let name = schema::text(arguments, "subcommand")?;
        let Some(subcommand) = self.allowed().find(|subcommand| subcommand.name == name) else {
            return Err(ToolError::Refused(format!("git {name} is not offered here")));
        };
        let words: Vec<&str> = arguments
            .get("arguments")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let words = self.checked(subcommand, &words)?;
        let directory = Path::new(schema::optional_text(arguments, "directory")?.unwrap_or("."));
        let directory = workspace.open_directory(directory)?.path().to_owned();
        if name == "clone" {
            refuse_clone_elsewhere(&words, &directory, workspace)?;
        }
        let surroundings = self.surrounded(subcommand.need, &directory, surroundings)?;
        let words =
            [name].into_iter().chain(subcommand.always.split_whitespace()).chain(words.iter().map(String::as_str));
        child::run(self.program(words), &surroundings)
    }

    /// How often each file was changed in the last commits, the most often first; nothing where there is no history.
    pub fn churn(&self, directory: &Path, surroundings: &Surroundings) -> Vec<(String, usize)> {
        let Ok(surroundings) = self.surrounded(Need::Nothing, directory, surroundings) else { return Vec::new() };
        let count = format!("--max-count={CHURN_COMMITS_MAX}");
        let words =
            ["log", "--no-merges", "--format=", "--name-only", "--relative", "--no-renames", "-z", &count, "--", "."];
        let Ok(text) = self.ask(&words, &surroundings) else { return Vec::new() };
        let mut counts = std::collections::BTreeMap::<&str, usize>::new();
        for path in text.split('\0').map(str::trim).filter(|path| !path.is_empty()) {
            *counts.entry(path).or_default() += 1;
        }
        let by_path = counts.into_iter().map(|(path, count)| (path.to_owned(), count));
        sort::by_key_reversed(by_path, |(_, count)| *count)
    }

    /// The arguments, if each of them is accepted.
    fn checked(&self, subcommand: &Subcommand, words: &[&str]) -> Result<Vec<String>, ToolError> {
        let mut checked = Vec::new();
        let mut others = 0;
        let mut words = words.iter();
        let mut only_paths = false;
        while let Some(word) = words.next() {
            if !only_paths && subcommand.valued.split_whitespace().any(|valued| valued == *word) {
                let value =
                    words.next().ok_or_else(|| ToolError::Arguments(format!("{word}: its value is missing")))?;
                checked.extend([(*word).to_owned(), (*value).to_owned()]);
                continue;
            }
            if !only_paths && word.starts_with('-') {
                self.check_option(subcommand, word)?;
                only_paths = *word == "--";
            } else {
                check_name(subcommand, word)?;
                others += 1;
            }
            checked.push((*word).to_owned());
        }
        let needs = |what: &str| Err(ToolError::Arguments(format!("git {} needs {what}", subcommand.name)));
        let has = |prefixes: &[&str]| checked.iter().any(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
        match subcommand.name {
            "checkout" if !only_paths || checked.last().is_some_and(|word| word == "--") => {
                needs("paths after --; for another branch use switch")
            }
            "commit" if !has(&["-m", "-am", "--message", "--no-edit"]) => needs("a message: -m and the text"),
            // A name alone would make a branch.
            "branch" if others > 0 && !self.options.allow_write => Ok([vec!["--list".to_owned()], checked].concat()),
            _ => Ok(checked),
        }
    }

    fn check_option(&self, subcommand: &Subcommand, word: &str) -> Result<(), ToolError> {
        const BRANCH_WRITES: [&str; 4] = ["-d", "--delete", "-m", "--move"];
        let is_known = subcommand.flags.split_whitespace().any(|flag| match flag.strip_suffix('=') {
            Some(name) => word.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')),
            None => word == flag,
        });
        let is_count = ["log", "show"].contains(&subcommand.name)
            && word
                .strip_prefix('-')
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
        let is_branch_write = subcommand.name == "branch" && self.options.allow_write && BRANCH_WRITES.contains(&word);
        if is_known || is_count || is_branch_write {
            return Ok(());
        }
        let accepted = [subcommand.flags, subcommand.valued].join(" ");
        let word = super::excerpt::beginning(word, 80);
        Err(ToolError::Refused(format!("git {} {word}: not an accepted option; accepted: {accepted}", subcommand.name)))
    }

    fn program<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Program {
        let arguments = ["--no-pager"].into_iter().chain(words).map(OsString::from).collect();
        Program { program: self.program.clone().into_os_string(), arguments, stdin: Vec::new() }
    }

    /// What git answers; an error when it does not end well, or says too much.
    fn ask(&self, words: &[&str], surroundings: &Surroundings) -> Result<String, ToolError> {
        let surroundings = Surroundings {
            timeout: surroundings.timeout.min(QUESTION_TIMEOUT),
            // The answer is for us: a path that holds the text of a secret must stay what it is.
            secrets: Secrets::default(),
            ..surroundings.clone()
        };
        let ended = child::capture(self.program(words.iter().copied()), &surroundings, ANSWER_BYTES_MAX)?;
        let is_whole = ended.output.cut_bytes == 0 && !ended.timed_out;
        let text = ended.output.text();
        if ended.status.is_success() && is_whole { Ok(text) } else { Err(ToolError::Failed(text)) }
    }

    /// The surroundings for a call in `directory`, in which nothing but git itself runs. Refuses when that cannot be had.
    fn surrounded(&self, need: Need, directory: &Path, surroundings: &Surroundings) -> Result<Surroundings, ToolError> {
        let root = &surroundings.directory;
        let mut environment = fixed_environment(need, root, &surroundings.environment);
        let mut settings: Vec<(String, String)> =
            SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut place = root.clone();
        settings.push(("safe.directory".to_owned(), place.display().to_string()));
        for name in directory.components() {
            place.push(name);
            settings.push(("safe.directory".to_owned(), place.display().to_string()));
        }
        let mut surrounded = Surroundings { directory: place, ..surroundings.clone() };
        if need != Need::Network || self.is_repository(&surrounded, &environment, &settings) {
            surrounded.environment = with_settings(&environment, &settings);
            self.refuse_outside(root, &surrounded)?;
            let found = self.neutralized_all(need, &surrounded, 0)?;
            settings.extend(found.settings);
            if !found.has_identity {
                environment.splice(0..0, identity());
            }
        }
        surrounded.environment = with_settings(&environment, &settings);
        Ok(surrounded)
    }

    /// What must be set against the configuration of the repository, and, for writing, of the submodules in it: `add` and
    /// `commit` look for changes in them by running git there.
    fn neutralized_all(&self, need: Need, surroundings: &Surroundings, depth: usize) -> Result<Found, ToolError> {
        let listed = self.ask(&["config", "--list", "--show-scope", "-z"], surroundings)?;
        let has_identity = listed.split('\0').any(|entry| entry.starts_with("user.email\n"));
        let mut found = Found { settings: neutralized(&listed, need)?, has_identity };
        if need != Need::Write {
            return Ok(found);
        }
        let files = self.ask(&["ls-files", "-z", "--format=%(objectmode) %(path)", "--", ":/"], surroundings)?;
        let modules: Vec<&str> = files.split('\0').filter_map(|file| file.strip_prefix("160000 ")).collect();
        let places = modules.iter().map(|module| surroundings.directory.join(module));
        let places: Vec<PathBuf> = places.filter(|place| place.join(".git").exists()).collect();
        if !places.is_empty() && (depth == SUBMODULE_DEPTH_MAX || places.len() > SUBMODULES_MAX) {
            return Err(ToolError::Refused("too many submodules, or submodules too deep in each other".to_owned()));
        }
        for directory in places {
            let module = self.neutralized_all(need, &Surroundings { directory, ..surroundings.clone() }, depth + 1)?;
            found.settings.extend(module.settings);
        }
        Ok(found)
    }

    fn is_repository(
        &self,
        surroundings: &Surroundings,
        environment: &[(OsString, OsString)],
        settings: &[(String, String)],
    ) -> bool {
        let environment = with_settings(environment, settings);
        self.ask(&["rev-parse", "--git-dir"], &Surroundings { environment, ..surroundings.clone() }).is_ok()
    }

    /// Git directory and work tree must lie in the workspace.
    fn refuse_outside(&self, root: &Path, surroundings: &Surroundings) -> Result<(), ToolError> {
        let words = ["rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir", "--is-bare-repository"];
        let answer = self.ask(&words, surroundings)?;
        let lines: Vec<&str> = answer.lines().collect();
        let [git_directory, common_directory, is_bare] = lines[..] else {
            return Err(ToolError::Failed("git rev-parse: an answer that is not understood".to_owned()));
        };
        let mut places = vec![git_directory.to_owned(), common_directory.to_owned()];
        if is_bare == "false" {
            places.push(self.ask(&["rev-parse", "--show-toplevel"], surroundings)?.trim_end_matches('\n').to_owned());
        }
        match places.iter().find(|place| !is_beneath(Path::new(place), root)) {
            Some(place) => Err(ToolError::Refused(format!("the repository's {place} lies outside the workspace"))),
            None => Ok(()),
        }
    }
}

fn is_beneath(path: &Path, root: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path.starts_with(root))
}

/// A name of a revision, a path, a remote or a URL. What leads out of the workspace is refused: `git diff` with a path
/// outside of the repository compares files of the whole machine.
fn check_name(subcommand: &Subcommand, word: &str) -> Result<(), ToolError> {
    let refused = |what: &str| {
        let word = super::excerpt::beginning(word, 200);
        Err(ToolError::Refused(format!("git {} {word}: {what}", subcommand.name)))
    };
    if subcommand.need == Need::Network {
        return match () {
            () if word.contains("::") || word.starts_with("file:") => refused("only https, http and ssh are accepted"),
            () if word.starts_with(['/', '.', '~']) => refused("a path is no repository here, give a URL or a remote"),
            () if word.starts_with(['+', ':']) => refused("this would overwrite or delete a branch of the remote"),
            () => Ok(()),
        };
    }
    if word.starts_with(['/', '~']) || word.split('/').any(|name| name == "..") {
        return refused("leads out, give a path relative to the directory");
    }
    Ok(())
}

/// The directory to clone into is made by git, which follows symbolic links; what it lies in must be in the workspace.
fn refuse_clone_elsewhere(words: &[String], directory: &Path, workspace: &Workspace) -> Result<(), ToolError> {
    let Some(last) = words.last().filter(|word| !word.contains(':') && !word.starts_with('-')) else { return Ok(()) };
    let target = directory.join(last);
    if last.split('/').any(|name| name == "..") {
        return Err(ToolError::Refused(format!("git clone {last}: leads out, give a path without ..")));
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    workspace.open_directory(parent)?;
    match workspace.metadata(&target) {
        Ok(_) => Err(ToolError::Failed(format!("git clone {last}: is there already"))),
        Err(_) => Ok(()),
    }
}

/// Settings that win over every file. Each of them either names a program that would be run, or makes git run itself.
const SETTINGS: [(&str, &str); 27] = [
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("core.quotePath", "false"),
    ("color.ui", "false"),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("push.gpgSign", "false"),
    ("log.showSignature", "false"),
    // Formats such as %G? ask for a signature to be checked.
    ("gpg.program", "/dev/null"),
    ("gpg.openpgp.program", "/dev/null"),
    ("gpg.x509.program", "/dev/null"),
    ("gpg.ssh.program", "/dev/null"),
    ("gc.auto", "0"),
    ("gc.autoDetach", "false"),
    ("maintenance.auto", "false"),
    // In a submodule git runs with the submodule's configuration.
    ("submodule.recurse", "false"),
    ("diff.ignoreSubmodules", "all"),
    ("diff.submodule", "short"),
    ("status.submoduleSummary", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("push.recurseSubmodules", "no"),
    // Its first line would stand in an error message.
    ("blame.ignoreRevsFile", ""),
    ("advice.detachedHead", "false"),
    ("transfer.bundleURI", "false"),
    ("init.defaultBranch", "main"),
];

fn fixed_environment(need: Need, root: &Path, given: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let protocols = if need == Need::Network { "https:http:ssh" } else { "none" };
    let mut fixed: Vec<(OsString, OsString)> = given.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
    let mut set = |name: &str, value: &OsStr| fixed.push((name.into(), value.into()));
    for (name, value) in [
        ("GIT_ALLOW_PROTOCOL", protocols),
        ("GIT_NO_LAZY_FETCH", if need == Need::Network { "0" } else { "1" }),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_ASKPASS", ""),
        ("SSH_ASKPASS", ""),
        ("GIT_PAGER", "cat"),
        ("GIT_EDITOR", "false"),
        ("GIT_SEQUENCE_EDITOR", "false"),
        ("TERM", "dumb"),
    ] {
        set(name, OsStr::new(value));
    }
    if !given.iter().any(|(name, _)| name == "GIT_SSH_COMMAND") {
        set("GIT_SSH_COMMAND", OsStr::new("ssh -oBatchMode=yes"));
    }
    // A repository above the workspace is none of the agent's business.
    if let Some(parent) = root.parent() {
        set("GIT_CEILING_DIRECTORIES", parent.as_os_str());
    }
    let home = given.iter().rev().find(|(name, _)| name == "HOME").map(|(_, value)| Path::new(value));
    if home.is_none_or(|home| is_beneath(home, root)) {
        // What the model can write is no configuration of the user's.
        set("GIT_CONFIG_GLOBAL", OsStr::new("/dev/null"));
    }
    fixed
}

/// Variables that an entry cannot hand on, because the wall is made of them.
fn is_ours(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ["GIT_CONFIG_COUNT", "GIT_DIR", "GIT_WORK_TREE", "GIT_EXTERNAL_DIFF", "GIT_EXEC_PATH"].contains(&&*name)
        || name.starts_with("GIT_CONFIG_KEY_")
        || name.starts_with("GIT_CONFIG_VALUE_")
}

/// In place of a name and an address that nobody has configured. First, so that the entry's own win.
fn identity() -> [(OsString, OsString); 4] {
    const NAME: &str = "thoughtmesh agent";
    const EMAIL: &str = "agent@thoughtmesh.invalid";
    [
        ("GIT_AUTHOR_NAME".into(), NAME.into()),
        ("GIT_AUTHOR_EMAIL".into(), EMAIL.into()),
        ("GIT_COMMITTER_NAME".into(), NAME.into()),
        ("GIT_COMMITTER_EMAIL".into(), EMAIL.into()),
    ]
}

/// Git reads settings from variables too (since 2.31), and there they are not split at `=`.
fn with_settings(environment: &[(OsString, OsString)], settings: &[(String, String)]) -> Vec<(OsString, OsString)> {
    let mut all = environment.to_vec();
    all.push(("GIT_CONFIG_COUNT".into(), settings.len().to_string().into()));
    for (index, (key, value)) in settings.iter().enumerate() {
        all.push((format!("GIT_CONFIG_KEY_{index}").into(), OsString::from_vec(key.clone().into_bytes())));
        all.push((format!("GIT_CONFIG_VALUE_{index}").into(), OsString::from_vec(value.clone().into_bytes())));
    }
    all
}

/// What must be set against the repository's own configuration, given as git lists it: scope, key and value of each entry.
fn neutralized(listed: &str, need: Need) -> Result<Vec<(String, String)>, ToolError> {
    let mut settings = Vec::new();
    let mut parts = listed.split('\0');
    while let (Some(scope), Some(entry)) = (parts.next(), parts.next()) {
        let key = entry.split('\n').next().unwrap_or_default();
        if !["local", "worktree"].contains(&scope) {
            continue;
        }
        let section = key.split('.').next().unwrap_or_default();
        let last = key.rsplit('.').next().unwrap_or_default();
        match (section, last) {
            ("filter", "clean" | "smudge" | "process") => settings.push((key.to_owned(), String::new())),
            ("filter", "required") => settings.push((key.to_owned(), "false".to_owned())),
            ("core", "excludesfile" | "attributesfile") => settings.push((key.to_owned(), "/dev/null".to_owned())),
            ("credential", _) | ("core", "alternaterefscommand") if need == Need::Network => {
                let what = "names a program, which is not run; remove it from the repository's configuration";
                return Err(ToolError::Refused(format!("{key} {what}")));
            }
            _ => {}
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, words: &[&str], options: GitOptions) -> Result<Vec<String>, ToolError> {
        let git = Git { program: "git".into(), options };
        let subcommand = SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name).unwrap();
        git.checked(subcommand, words)
    }

    const ALL: GitOptions = GitOptions { allow_write: true, allow_network: true };

    #[test]
    fn options_that_run_programs_are_refused_in_every_spelling() {
        for name in SUBCOMMANDS.map(|subcommand| subcommand.name) {
            for word in [
                "-c",
                "-ccore.pager=x",
                "--exec-path=x",
                "--upload-pack=x",
                "--upload-p=x",
                "--receive-pack=x",
                "-u=x",
                "--ext-diff",
                "--ext",
                "--textconv",
                "--output=x",
                "--out=x",
                "-o",
                "--no-index",
                "--config=x",
                "--template=x",
                "-i=x",
                "--edit",
                "-e=x",
                "--interactive",
                "--patch-with-raw",
                "--pathspec-from-file=x",
                "--show-signature",
                "--exec=x",
                "--contents",
                "--file=x",
                "-F",
                "--recurse-submodules",
                "--reference=x",
                "--git-dir=x",
                "--gpg-sign",
                "-C/",
            ] {
                let result = checked(name, &[word], ALL);
                assert!(result.is_err(), "{name} {word}: {result:?}");
            }
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for words in [&["/etc/passwd", "x"][..], &["--", "../x"], &["a/../../x"], &["~/x"], &["HEAD", "--", "/etc"]] {
            assert!(matches!(checked("diff", words, ALL), Err(ToolError::Refused(_))), "{words:?}");
        }
        assert!(checked("diff", &["main..feature", "HEAD~2", "origin/main...x", "--", "a/b..c"], ALL).is_ok());
    }

    #[test]
    fn repositories_are_named_by_url() {
        for word in ["ext::sh -c id", "file:///x", "/x", "../x", "+main", ":main", "~x"] {
            assert!(matches!(checked("push", &["origin", word], ALL), Err(ToolError::Refused(_))), "{word}");
        }
        assert!(checked("clone", &["--depth=1", "https://example.com/a/b.git", "b"], ALL).is_ok());
        assert!(checked("clone", &["git@example.com:a/b.git"], ALL).is_ok());
    }

    #[test]
    fn checkout_is_for_paths() {
        for words in [&["main"][..], &[], &["main", "--"], &["-b", "x"]] {
            assert!(checked("checkout", words, ALL).is_err(), "{words:?}");
        }
        assert!(checked("checkout", &["HEAD~1", "--", "a"], ALL).is_ok());
    }

    #[test]
    fn a_value_may_look_like_an_option() {
        assert_eq!(checked("commit", &["-m", "--exec"], ALL).unwrap(), ["-m", "--exec"]);
        assert!(matches!(checked("commit", &["-m"], ALL), Err(ToolError::Arguments(_))));
        assert!(matches!(checked("commit", &["--amend"], ALL), Err(ToolError::Arguments(_))));
    }

    #[test]
    fn without_leave_to_write_a_branch_is_only_listed() {
        assert_eq!(checked("branch", &["new"], GitOptions::default()).unwrap(), ["--list", "new"]);
        assert!(checked("branch", &["-d", "x"], GitOptions::default()).is_err());
        assert_eq!(checked("branch", &["new"], ALL).unwrap(), ["new"]);
    }

    #[test]
    fn filters_of_the_repository_are_emptied_and_those_of_the_user_are_not() {
        let listed = "local\0filter.a.b.clean\nrun me\0local\0filter.x.required\0global\0filter.lfs.clean\ngit-lfs\0";
        let settings = neutralized(listed, Need::Nothing).unwrap();
        let expected = [("filter.a.b.clean", ""), ("filter.x.required", "false")];
        assert_eq!(settings, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(neutralized("local\0credential.https://x.helper\n!id\0", Need::Network).is_err());
    }
}
