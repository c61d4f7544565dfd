//! The tool `git`: what it does, and what neither a model nor a repository can talk it into.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Runtime};

/// Runs git as its users do, with a configuration of its own.
#[track_caller]
fn git(directory: &Path, words: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(directory).args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]).args(words);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").stdout(Stdio::null());
    assert!(command.status().unwrap().success(), "git {words:?}");
}

/// A workspace with two commits and a change that is not committed.
fn repository(config: Value) -> Runtime {
    let runtime = Runtime::new().file("a.txt", "one\n").file("src/b.txt", "two\n");
    let workspace = runtime.workspace();
    git(&workspace, &["init", "-q", "-b", "main"]);
    git(&workspace, &["add", "."]);
    git(&workspace, &["commit", "-q", "-m", "first commit"]);
    std::fs::write(workspace.join("a.txt"), "one\nmore\n").unwrap();
    git(&workspace, &["commit", "-q", "-a", "-m", "second commit"]);
    std::fs::write(workspace.join("a.txt"), "one\nmore\nchanged\n").unwrap();
    runtime.tools(json!([{"name": "git", "config": config}]))
}

/// Makes these calls, one turn after the other, then gives up.
fn calling(runtime: Runtime, calls: &[(&str, &[&str])]) -> Ended {
    let calls: Vec<Value> = calls.iter().map(|(name, words)| json!({"subcommand": name, "arguments": words})).collect();
    calling_with(runtime, &calls)
}

fn calling_with(runtime: Runtime, calls: &[Value]) -> Ended {
    let calls = calls.iter().map(|arguments| chat::tool_call("git", arguments.clone()));
    let last = chat::finish(json!({"status": "failed", "summary": "The test is over.", "key_results": []}));
    let ended = runtime.plays(calls.chain([last])).run();
    ended.exits(1).reason("gave_up");
    ended
}

fn write_allowed() -> Value {
    json!({"allow_write": true})
}

#[test]
fn history_is_read() {
    let ended = calling(
        repository(json!({})),
        &[
            ("status", &["--short"]),
            ("diff", &[]),
            ("log", &["--oneline", "-n", "5"]),
            ("show", &["HEAD", "--stat"]),
            ("blame", &["a.txt"]),
            ("branch", &[]),
            ("diff", &["HEAD~1", "HEAD", "--", "a.txt"]),
            ("log", &["-1", "--format=%an %s"]),
        ],
    );
    ended.tool_result_has(1, " M a.txt").tool_result_has(2, "+changed").tool_result_has(3, "first commit");
    ended.tool_result_has(4, "second commit").tool_result_has(5, "Ada").tool_result_has(6, "* main");
    ended.tool_result_has(7, "+more").tool_result_lacks(7, "+changed").tool_result_has(8, "Ada second commit");
}

#[test]
fn only_reading_is_offered_unless_allowed() {
    let ended = calling(
        repository(json!({})),
        &[("add", &["a.txt"]), ("commit", &["-m", "x"]), ("clone", &["https://x.invalid/a"]), ("branch", &["new"])],
    );
    for number in [1, 2, 3] {
        ended.tool_result_has(number, "subcommand").tool_result_has(number, "accepted");
    }
    let head = std::fs::read_dir(ended_path(&ended, ".git/refs/heads")).unwrap().count();
    ended.check(head == 1, "a branch was made");
}

fn ended_path(ended: &Ended, path: &str) -> std::path::PathBuf {
    ended.workspace().join(path)
}

#[test]
fn history_is_written_where_allowed() {
    let ended = calling(
        repository(write_allowed()),
        &[
            ("switch", &["-c", "work"]),
            ("add", &["--all"]),
            ("commit", &["-m", "third: it's \"quoted\" $(id)"]),
            ("log", &["-1", "--format=%an <%ae> %s"]),
            ("checkout", &["HEAD~2", "--", "a.txt"]),
        ],
    );
    ended.tool_result_has(4, "thoughtmesh agent <agent@thoughtmesh.invalid> third: it's \"quoted\" $(id)");
    ended.file_is("a.txt", "one\n");
}

#[test]
fn the_name_of_the_entry_signs_a_commit() {
    let config = json!({"allow_write": true, "env": {"GIT_AUTHOR_NAME": "Bot", "GIT_AUTHOR_EMAIL": "bot@example.com"}});
    let ended = calling(repository(config), &[("commit", &["-am", "third"]), ("log", &["-1", "--format=%an <%ae>"])]);
    ended.tool_result_has(2, "Bot <bot@example.com>");
}

#[test]
fn a_commit_without_a_message_is_refused_without_an_editor() {
    let ended = calling(repository(write_allowed()), &[("commit", &["-a"]), ("commit", &["--amend"])]);
    ended.tool_result_has(1, "message").tool_result_has(2, "message");
}

#[test]
fn a_repository_beneath_the_workspace_is_named_by_its_directory() {
    let runtime = repository(json!({})).file("inner/c.txt", "x\n");
    let inner = runtime.workspace().join("inner");
    git(&inner, &["init", "-q", "-b", "main"]);
    git(&inner, &["add", "."]);
    git(&inner, &["commit", "-q", "-m", "of the inner one"]);
    let call = |directory: &str| json!({"subcommand": "log", "arguments": ["--oneline"], "directory": directory});
    let ended = calling_with(runtime, &[call("inner"), call("../.."), call("src")]);
    ended.tool_result_has(1, "of the inner one").tool_result_lacks(1, "second commit");
    ended.tool_result_has(2, "outside the workspace").tool_result_has(3, "second commit");
}

#[test]
fn a_repository_above_the_workspace_is_not_found() {
    // The tests' directories lie in this package's own repository.
    let runtime = Runtime::new().tools(json!([{"name": "git", "config": {}}]));
    let ended = calling(runtime, &[("status", &[]), ("diff", &["a", "b"])]);
    ended.tool_result_has(1, "not a git repository").tool_result_has(2, "not a git repository");
}

#[test]
fn options_that_run_programs_or_write_files_are_refused() {
    let words: [&[&str]; 8] = [
        &["-c", "core.pager=touch marker"],
        &["--exec-path=."],
        &["--output=marker"],
        &["--ext-diff"],
        &["--textconv"],
        &["--no-index", "a.txt", "/etc/passwd"],
        &["/etc/passwd", "a.txt"],
        &["../../../../../../etc/passwd", "a.txt"],
    ];
    let calls: Vec<(&str, &[&str])> = words.iter().map(|words| ("diff", *words)).collect();
    let ended = calling(repository(write_allowed()), &calls);
    for number in 1..=words.len() {
        ended.tool_result_has(number, "refused").tool_result_lacks(number, "root:");
    }
    ended.check(ended.file("marker").is_none(), "a program ran");
}

/// Every subcommand that works on the workspace.
const EVERYTHING: [(&str, &[&str]); 14] = [
    ("status", &[]),
    ("diff", &[]),
    ("diff", &["HEAD~1"]),
    ("log", &["-p", "--format=%G? %GK %s"]),
    ("log", &["--stat"]),
    ("show", &["HEAD"]),
    ("blame", &["a.txt"]),
    ("branch", &["-vv"]),
    ("add", &["--all"]),
    ("commit", &["-am", "a commit"]),
    ("checkout", &["HEAD~1", "--", "a.txt"]),
    ("switch", &["-c", "other"]),
    ("switch", &["main"]),
    ("restore", &["--staged", "--worktree", "--source=HEAD~1", "."]),
];

/// Does everything in a repository that was prepared by `attack`; nothing of it may write the file `.git/marker`.
#[track_caller]
fn withstands(attack: impl Fn(&Path)) {
    let runtime = repository(json!({"allow_write": true, "allow_network": true}))
        .file(".gitattributes", "*.txt diff=evil filter=evil\n");
    let workspace = runtime.workspace();
    attack(&workspace);
    let _ = std::fs::remove_file(workspace.join(".git/marker"));
    let ended = calling(runtime, &EVERYTHING);
    ended.check(ended.file(".git/marker").is_none(), "a program of the repository's ran");
}

/// A program that leaves a file behind, as a repository would name it. The file is where no command here tidies up.
fn program(workspace: &Path) -> String {
    let path = workspace.join(".git/evil");
    std::fs::write(&path, format!("#!/bin/sh\ntouch {}\ncat\n", workspace.join(".git/marker").display())).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn programs_in_the_repositorys_configuration_do_not_run() {
    const MOST: &str = "core.fsmonitor core.pager pager.log core.editor sequence.editor core.askPass diff.external \
                        diff.evil.command diff.evil.textconv gpg.program gpg.openpgp.program merge.evil.driver \
                        filter.evil.clean filter.evil.smudge alias.status alias.log";
    for keys in [MOST, "filter.evil.process"] {
        withstands(|workspace| {
            let program = program(workspace);
            // By hand, so that setting the stage does not run it.
            let mut config = std::fs::OpenOptions::new().append(true).open(workspace.join(".git/config")).unwrap();
            for key in keys.split_whitespace() {
                let (section, name) = key.rsplit_once('.').unwrap();
                let header = section.split_once('.').map_or(section.to_owned(), |(a, b)| format!("{a} \"{b}\""));
                writeln!(config, "[{header}]\n{name} = {program}").unwrap();
            }
            writeln!(config, "[commit]\ngpgSign = true\n[log]\nshowSignature = true").unwrap();
            writeln!(config, "[filter \"evil\"]\nrequired = true").unwrap();
        });
    }
}

#[test]
fn programs_in_an_included_configuration_do_not_run() {
    withstands(|workspace| {
        let program = program(workspace);
        let included =
            format!("[filter \"evil\"]\nclean = {program}\nsmudge = {program}\n[core]\nfsmonitor = {program}\n");
        std::fs::write(workspace.join(".git/more"), included).unwrap();
        let config = std::fs::read_to_string(workspace.join(".git/config")).unwrap();
        std::fs::write(workspace.join(".git/config"), config + "[include]\npath = more\n").unwrap();
    });
}

#[test]
fn hooks_do_not_run() {
    withstands(|workspace| {
        let program = program(workspace);
        for name in [
            "pre-commit",
            "post-commit",
            "commit-msg",
            "prepare-commit-msg",
            "post-checkout",
            "post-index-change",
            "reference-transaction",
            "pre-auto-gc",
        ] {
            std::fs::copy(&program, workspace.join(".git/hooks").join(name)).unwrap();
        }
        let config = std::fs::read_to_string(workspace.join(".git/config")).unwrap();
        std::fs::write(workspace.join(".git/config"), config + "[core]\nhooksPath = .git/hooks\n").unwrap();
    });
}

#[test]
fn programs_of_a_submodule_do_not_run() {
    withstands(|workspace| {
        let inner = workspace.join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("c.txt"), "x\n").unwrap();
        git(&inner, &["init", "-q", "-b", "main"]);
        git(&inner, &["add", "."]);
        git(&inner, &["commit", "-q", "-m", "inner"]);
        git(workspace, &["-c", "advice.addEmbeddedRepo=false", "add", "inner"]);
        let modules = "[submodule \"inner\"]\npath = inner\nurl = ./inner\nignore = none\n";
        std::fs::write(workspace.join(".gitmodules"), modules).unwrap();
        git(workspace, &["add", ".gitmodules"]);
        git(workspace, &["commit", "-q", "-m", "with a submodule"]);
        let program = program(workspace);
        let config = std::fs::read_to_string(inner.join(".git/config")).unwrap();
        let evil = format!("[core]\nfsmonitor = {program}\n[filter \"evil\"]\nclean = {program}\n");
        std::fs::write(inner.join(".git/config"), config + &evil).unwrap();
        std::fs::write(inner.join(".gitattributes"), "*.txt filter=evil\n").unwrap();
        std::fs::write(inner.join("c.txt"), "y\n").unwrap();
    });
}

#[test]
fn a_home_in_the_workspace_configures_nothing() {
    let runtime = repository(write_allowed());
    let workspace = runtime.workspace();
    let program = program(&workspace);
    let config =
        format!("[core]\nfsmonitor = {program}\n[diff]\nexternal = {program}\n[filter \"evil\"]\nclean = {program}\n");
    let runtime = runtime
        .file(".gitconfig", config)
        .file(".gitattributes", "*.txt filter=evil\n")
        .env("HOME", workspace.to_str().unwrap());
    let ended = calling(runtime, &EVERYTHING);
    ended.check(ended.file(".git/marker").is_none(), "a program of the workspace's ran");
}

#[test]
fn a_repository_elsewhere_is_refused() {
    let runtime = repository(json!({}));
    let outside = runtime.path_outside("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("c.txt"), "marker-of-the-outside\n").unwrap();
    git(&outside, &["init", "-q", "-b", "main"]);
    git(&outside, &["add", "."]);
    git(&outside, &["commit", "-q", "-m", "marker-of-the-outside"]);
    let git_directory = format!("gitdir: {}\n", outside.join(".git").display());
    let runtime = runtime.file("inner/.git", git_directory);
    // And a work tree elsewhere.
    std::fs::create_dir(runtime.workspace().join("tree")).unwrap();
    let tree = runtime.workspace().join("tree");
    git(&tree, &["init", "-q", "-b", "main"]);
    git(&tree, &["config", "core.worktree", outside.to_str().unwrap()]);
    let call = |directory: &str| json!({"subcommand": "status", "arguments": ["-uall"], "directory": directory});
    let ended = calling_with(runtime, &[call("inner"), call("tree")]);
    for number in [1, 2] {
        ended.tool_result_has(number, "outside the workspace").tool_result_lacks(number, "c.txt");
    }
}

#[test]
fn a_workspace_of_another_owner_works() {
    let runtime = repository(json!({}));
    let changed = Command::new("chown").args(["-R", "12345:12345"]).arg(runtime.workspace()).status().unwrap();
    if !changed.success() {
        // Only root can give files away; the gate runs as root.
        return drop(runtime.plays([]));
    }
    calling(runtime, &[("log", &["--oneline"])]).tool_result_has(1, "second commit").tool_result_lacks(1, "dubious");
}

// The network.

/// Serves the files beneath a directory, as git's dumb protocol wants them, until the process ends.
fn file_server(root: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let root = root.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut first = String::new();
            let _ = reader.read_line(&mut first);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let path = first.split([' ', '?']).nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            let found = std::fs::read(root.join(path));
            let status = if found.is_ok() { "200 OK" } else { "404 Not Found" };
            let body = found.unwrap_or_default();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = reader.get_mut().write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

#[test]
fn a_repository_is_cloned_where_the_network_is_allowed() {
    let runtime = repository(json!({"allow_network": true}));
    let served = runtime.path_outside("served");
    std::fs::create_dir(&served).unwrap();
    git(&served, &["clone", "-q", "--bare", runtime.workspace().to_str().unwrap(), "a.git"]);
    git(&served.join("a.git"), &["update-server-info"]);
    let url = format!("{}/a.git", file_server(&served));
    let log = json!({"subcommand": "log", "arguments": ["--oneline"], "directory": "copy"});
    let fetch = json!({"subcommand": "fetch", "arguments": [], "directory": "copy"});
    let clone = json!({"subcommand": "clone", "arguments": ["-q", url, "copy"]});
    let ended = calling_with(runtime, &[clone, log, fetch]);
    ended.tool_result_has(2, "second commit").file_is("copy/a.txt", "one\nmore\n");
    ended.tool_result_lacks(3, "failed");
}

#[test]
fn nothing_is_cloned_through_a_program_or_from_a_path() {
    let runtime = repository(json!({"allow_network": true}));
    let path = runtime.workspace().to_str().unwrap().to_owned();
    let marker = format!("ext::touch {path}/marker");
    let calls: [(&str, &[&str]); 6] = [
        ("clone", &[&marker, "x"]),
        ("clone", &["file:///etc", "x"]),
        ("clone", &[&path, "x"]),
        ("clone", &["--upload-pack=touch marker", "https://x.invalid/a"]),
        ("clone", &["https://x.invalid/a", "../x"]),
        ("fetch", &[&marker]),
    ];
    let ended = calling(runtime, &calls);
    for number in 1..=calls.len() {
        ended.tool_result_has(number, "refused");
    }
    ended.check(ended.file("marker").is_none(), "a program ran");
}

#[test]
fn a_remote_that_names_a_program_does_not_run_it() {
    for (key, value) in [
        ("remote.origin.url", "ext::sh -c 'touch marker'"),
        ("core.sshCommand", "touch marker"),
        ("credential.helper", "!touch marker"),
        ("core.alternateRefsCommand", "touch marker"),
        ("url.ext::touch marker .insteadOf", "https://x.invalid/"),
    ] {
        let runtime = repository(json!({"allow_network": true, "timeout_seconds": 20}));
        let workspace = runtime.workspace();
        git(&workspace, &["config", "remote.origin.url", "ssh://x.invalid/a"]);
        git(&workspace, &["config", "remote.origin.vcs", ""]);
        git(&workspace, &["config", "--unset", "remote.origin.vcs"]);
        git(&workspace, &["config", key, value]);
        let ended = calling(runtime, &[("fetch", &["origin"]), ("fetch", &["https://x.invalid/a"])]);
        ended.check(ended.file("marker").is_none(), key);
    }
}

#[test]
fn a_clone_does_not_follow_a_link_out() {
    let runtime = repository(json!({"allow_network": true})).link("out", "..");
    let ended = calling(runtime, &[("clone", &["https://x.invalid/a", "out/copy"])]);
    ended
        .tool_result_has(1, "leads out")
        .check(ended.file_outside("copy/.git/HEAD").is_none(), "it was cloned outside");
}

// Where it cannot work.

#[test]
fn without_git_the_run_ends_before_the_first_model_call() {
    let runtime = Runtime::new().env("PATH", "/nowhere").tools(json!([{"name": "git", "config": {}}])).plays([]);
    runtime.run().exits(1).reason("tool_unavailable").tells("git");
    let optional = json!([{"name": "git", "required": false}]);
    let ended = Runtime::new().env("PATH", "/nowhere").tools(optional).plays([chat::achieved(0)]).run();
    ended.exits(0).log_has("git").check(ended.request(1).tool_names() == ["finish"], "git is offered");
}

#[test]
fn an_unknown_field_names_the_nearest() {
    let runtime = Runtime::new().tools(json!([{"name": "git", "config": {"allow_writes": true}}])).plays([]);
    runtime.run().complains_about(&["[0].config.allow_writes", "did you mean `allow_write`"]);
}
