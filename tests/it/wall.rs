//! The wall around tools, attacked: secrets, other processes' memory, orphans, and what a file system can do to us.
//!
//! What needs root (name spaces, capabilities) runs where the tests run as root, as the gate does, and is passed over
//! elsewhere. Attacks on single paths are in `tools.rs`, those by git in `git.rs`.

use std::process::Command;

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{API_KEY, Ended, Runtime};

/// Longer than what `base64` prints on one line.
const TOKEN: &str = "tok/EN+9f8e7d6c5b4a39281706f5e4d3c2b1a0-9f8e7d6c5b4a39281706f5e4d3c2b1a0-9f8e7d6c5b4a3928";

fn calling(runtime: Runtime, calls: &[(&str, Value)]) -> Ended {
    let calls = calls.iter().map(|(name, arguments)| chat::tool_call(name, arguments.clone()));
    let last = chat::finish(json!({"status": "failed", "summary": "The test is over.", "key_results": []}));
    let ended = runtime.plays(calls.chain([last])).run();
    ended.exits(1).reason("gave_up");
    ended
}

fn shell(command: &str) -> (&'static str, Value) {
    ("shell", json!({"command": command}))
}

fn with_shell() -> Runtime {
    Runtime::new().tools(json!([{"name": "shell", "config": {"env": ["DEPLOY_TOKEN"]}}, {"name": "filesystem"}]))
}

fn with_token() -> Runtime {
    with_shell().env("DEPLOY_TOKEN", TOKEN)
}

/// Whether a program can be started this way here.
fn works(words: &[&str]) -> bool {
    Command::new(words[0]).args(&words[1..]).arg("true").status().is_ok_and(|status| status.success())
}

/// Nothing of `TOKEN` is in what the model, or anybody, was told.
#[track_caller]
fn is_hidden(ended: &Ended) {
    for secret in [TOKEN, &TOKEN[..24], &TOKEN[TOKEN.len() - 24..], API_KEY] {
        ended.never_says(secret);
        for request in &ended.requests {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            ended.check(!body.contains(secret), &format!("the model was told {secret}"));
        }
    }
}

// Secrets.

#[test]
fn a_secret_is_masked_however_a_tool_prints_it() {
    let ended = calling(
        with_token(),
        &[
            shell("echo \"$DEPLOY_TOKEN\"; echo \"$DEPLOY_TOKEN\" >&2"),
            shell("printf %s \"$DEPLOY_TOKEN\" | base64"),
            shell("printf 'user:%s' \"$DEPLOY_TOKEN\" | base64 -w 0"),
            shell("printf 'ab%s' \"$DEPLOY_TOKEN\" | base64 | tr '+/' '-_'"),
            shell("printf %s \"$DEPLOY_TOKEN\" | sed 's,/,%2F,g; s,+,%2B,g'"),
            shell("printf %s \"$DEPLOY_TOKEN\" | sed 's,/,%2f,g; s,+,%2b,g'"),
            shell("printf %s \"$DEPLOY_TOKEN\" | fold -w 40"),
            shell("env; exit 3"),
        ],
    );
    is_hidden(&ended);
    for number in 1..=8 {
        ended.tool_result_has(number, "[secret DEPLOY_TOKEN]");
    }
}

#[test]
fn a_secret_that_arrives_in_pieces_is_masked() {
    let ended = calling(
        with_token(),
        &[shell("t=$DEPLOY_TOKEN; while [ -n \"$t\" ]; do printf %.1s \"$t\"; t=${t#?}; sleep 0.005; done; echo")],
    );
    is_hidden(&ended);
    ended.tool_result_has(1, "[secret DEPLOY_TOKEN]");
}

#[test]
fn a_secret_that_a_cut_goes_through_leaves_nothing() {
    // Wherever the cut falls, it falls into one.
    let calls: Vec<_> = (0..8)
        .map(|shift| shell(&format!("printf %{}s; yes \"$DEPLOY_TOKEN\" | head -n 2000 | tr -d '\\n'", shift * 11)))
        .collect();
    let ended = calling(with_token(), &calls);
    is_hidden(&ended);
    ended.tool_result_has(1, "cut here");
}

#[test]
fn a_secret_in_the_output_of_a_check_is_masked() {
    let check = json!({"command": ["sh", "-c", "yes \"$DEPLOY_TOKEN\" | head -n 500 | tr -d '\\n'; exit 1"], "env": ["DEPLOY_TOKEN"]});
    let runtime = with_token().key_results(json!([{"description": "It holds.", "check": check}]));
    let give_up = chat::finish(json!({"status": "failed", "summary": "It does not.", "key_results": []}));
    let ended = runtime.plays([chat::achieved(1), give_up]).run();
    is_hidden(&ended);
    ended.exits(1).check(ended.last_request().news().contains("[secret DEPLOY_TOKEN]"), "the check's output");
}

#[test]
fn a_secret_in_a_file_is_masked_also_where_a_line_is_cut() {
    let line = TOKEN.repeat(600);
    let needle = &TOKEN[30..50];
    let ended = calling(
        with_token().file("long.txt", &line).file("short.txt", format!("a {TOKEN} b\n")),
        &[
            ("read_file", json!({"path": "long.txt"})),
            ("read_file", json!({"path": "short.txt"})),
            ("search_text", json!({"pattern": needle})),
            ("search_text", json!({"pattern": "a tok"})),
        ],
    );
    is_hidden(&ended);
}

#[test]
fn the_models_own_key_is_masked_in_a_file() {
    let ended = calling(with_token().file("key.txt", API_KEY), &[("read_file", json!({"path": "key.txt"}))]);
    is_hidden(&ended);
}

#[test]
fn a_short_secret_is_not_masked_and_a_warning_says_so() {
    let ended = calling(with_shell().env("DEPLOY_TOKEN", "abc12"), &[shell("echo \"$DEPLOY_TOKEN\"")]);
    ended.log_has("DEPLOY_TOKEN: shorter than 6").tool_result_has(1, "abc12");
}

// Our memory.

/// Reads what a child could read of us.
const INSPECT: &str = "tr '\\0' '\\n' < /proc/$PPID/environ; cat /proc/$PPID/maps; \
                       (exec 3< /proc/$PPID/mem) && echo opened-mem; ls -l /proc/$PPID/fd; echo over";

#[track_caller]
fn cannot_inspect(starter: &[&str]) {
    if !starter.is_empty() && !works(starter) {
        return;
    }
    let runtime = with_token().started_by(starter);
    Command::new("chmod").args(["-R", "a+rwX"]).arg(runtime.path_outside(".")).status().unwrap();
    let ended = calling(runtime, &[shell(INSPECT)]);
    for text in ["THOUGHTMESH_OBJECTIVE", "opened-mem", "[heap]", "[stack]", " -> "] {
        ended.tool_result_lacks(1, text);
    }
    ended.tool_result_has(1, "over");
}

#[test]
fn a_child_cannot_look_into_us() {
    // A privileged root can, whatever we do: see README.
    if !works(&["setpriv", "--bounding-set=-all"]) {
        cannot_inspect(&[]);
    }
}

#[test]
fn a_child_of_a_root_that_may_trace_cannot_look_into_us() {
    cannot_inspect(&["setpriv", "--bounding-set=-sys_admin"]);
}

#[test]
fn a_child_of_a_containers_root_cannot_look_into_us() {
    let kept = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+sys_chroot,+mknod,+audit_write,+setfcap";
    cannot_inspect(&["setpriv", &format!("--bounding-set={kept}")]);
    cannot_inspect(&["setpriv", "--bounding-set=-all"]);
}

#[test]
fn a_child_of_a_plain_user_cannot_look_into_us() {
    let executable = env!("CARGO_BIN_EXE_thoughtmesh-runtime");
    let starter = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"];
    let can_start = Command::new(starter[0]).args(&starter[1..]).args(["test", "-x", executable]).status();
    // The package may lie where a plain user does not get.
    if can_start.is_ok_and(|status| status.success()) {
        cannot_inspect(&starter);
    }
}

// Orphans.

/// Fifty calls that each leave somebody behind, and how many of them are zombies after one call more.
fn leaving_orphans(runtime: Runtime) -> Ended {
    let left_behind = [
        "(sleep 300 >/dev/null 2>&1 &); true",
        "setsid sh -c 'exit 3' >/dev/null 2>&1 & true",
        "(setsid sleep 0.01 >/dev/null 2>&1 &) & true",
    ];
    let mut calls: Vec<_> = (0..50).map(|number| shell(&format!("{} # {number}", left_behind[number % 3]))).collect();
    // What ended after the last call is reaped by the next.
    calls.push(shell("sleep 0.3"));
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | xargs -r grep -l \"^PPid:.$PPID\\$\" | wc -l";
    calls.push(shell(&format!("echo we are $PPID; echo zombies: $({zombies})")));
    let ended = calling(runtime.env("DEPLOY_TOKEN", TOKEN), &calls);
    for number in 1..=50 {
        ended.tool_result_has(number, "[no output]");
    }
    ended.tool_result_has(52, "zombies: 0");
    ended
}

#[test]
fn orphans_are_reaped() {
    leaving_orphans(with_shell());
}

#[test]
fn orphans_are_reaped_when_we_are_process_1() {
    let starter = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if works(&starter) {
        leaving_orphans(with_shell().started_by(&starter)).tool_result_has(52, "we are 1\n");
    }
}

// Processes.

#[test]
fn memory_does_not_grow_with_what_a_tool_prints() {
    let peak = || shell("awk '/VmHWM/ {print $2}' /proc/$PPID/status");
    let ended = calling(with_token(), &[peak(), shell("head -c 100000000 /dev/zero | tr '\\0' x"), peak()]);
    let kilobytes = |number| ended.tool_result(number).trim().parse::<u64>().unwrap();
    ended.check(kilobytes(3) < kilobytes(1) + 2_000, "memory grew");
    ended.tool_result_has(2, "bytes of output cut here");
}

#[test]
fn a_child_that_moves_to_another_group_does_not_hold_the_run() {
    let tools = json!([{"name": "shell", "config": {"timeout_seconds": 1}}]);
    let ended = calling(
        Runtime::new().tools(tools),
        &[shell("set -m; sleep 300 & echo one"), shell("setsid sh -c 'trap \"\" TERM; sleep 20' & echo two; wait")],
    );
    ended.tool_result_has(1, "one").tool_result_has(2, "two").tool_result_has(2, "1 s");
    ended.check(ended.duration.as_secs() < 15, "it was waited for");
}

#[test]
fn a_child_that_forks_without_end_is_ended_with_all_of_them() {
    let tools = json!([{"name": "shell", "config": {"timeout_seconds": 1}}]);
    let count = "grep -sl '[m]arker-of-the-forks' /proc/[0-9]*/cmdline | wc -l";
    let bomb = "f() { sh -c 'sleep 60; : marker-of-the-forks' & sleep 0.02; f; }; f";
    let ended = calling(Runtime::new().tools(tools), &[shell(bomb), shell("sleep 0.2"), shell(count)]);
    ended.tool_result_has(1, "1 s");
    ended.check(ended.tool_result(3).trim() == "0", "some are alive");
}

// Files.

#[test]
fn files_of_the_kernel_are_refused_in_a_workspace_that_holds_them() {
    let runtime = Runtime::new().tools_named(&["filesystem"]).env("THOUGHTMESH_WORKSPACE", "/");
    let ended = calling(
        runtime,
        &[
            ("read_file", json!({"path": "proc/self/environ"})),
            ("read_file", json!({"path": "/proc/self/environ"})),
            ("list_directory", json!({"path": "/proc/self"})),
            ("read_file", json!({"path": "dev/zero"})),
            ("write_file", json!({"path": "proc/self/comm", "content": "x"})),
            ("search_text", json!({"pattern": "THOUGHTMESH_OBJECTIVE", "path": "proc"})),
        ],
    );
    for number in 1..=6 {
        ended.tool_result_lacks(number, "Write the report");
    }
    ended.tool_result_has(4, "device").tool_result_has(1, "refused").tool_result_has(3, "refused");
}

#[test]
fn names_that_are_not_utf8_do_not_end_the_run() {
    let runtime = Runtime::new().tools_named(&["filesystem"]);
    let name = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9.txt");
    std::fs::write(runtime.workspace().join::<&std::ffi::OsStr>(name), "a needle\n").unwrap();
    let calls = [
        ("list_directory", json!({})),
        ("find_files", json!({"pattern": "*.txt"})),
        ("search_text", json!({"pattern": "needle"})),
    ];
    let ended = calling(runtime, &calls);
    for number in 1..=3 {
        ended.tool_result_has(number, "caf\u{fffd}.txt");
    }
}

#[test]
fn a_sparse_file_of_ten_gigabytes_holds_nobody_up() {
    let runtime = Runtime::new().tools_named(&["filesystem"]).file("huge.txt", "begin\n");
    let file = std::fs::OpenOptions::new().write(true).open(runtime.workspace().join("huge.txt")).unwrap();
    file.set_len(10 << 30).unwrap();
    let ended = calling(
        runtime,
        &[
            ("read_file", json!({"path": "huge.txt"})),
            ("search_text", json!({"pattern": "needle"})),
            ("edit_file", json!({"path": "huge.txt", "old_text": "begin", "new_text": "end"})),
        ],
    );
    ended.check(ended.duration.as_secs() < 20, "it took too long");
}

#[test]
fn a_directory_of_a_hundred_thousand_entries_is_listed_in_part() {
    let runtime = Runtime::new().tools_named(&["filesystem"]);
    let script = "mkdir many && cd many && seq -f name-%06.0f 100001 | xargs touch";
    assert!(Command::new("sh").arg("-c").arg(script).current_dir(runtime.workspace()).status().unwrap().success());
    let calls = [
        ("list_directory", json!({"path": "many"})),
        ("find_files", json!({"pattern": "name-000001"})),
        ("search_text", json!({"pattern": "x", "path": "many"})),
    ];
    let ended = calling(runtime, &calls);
    ended.tool_result_has(2, "stopped after 100000 names").check(ended.duration.as_secs() < 30, "it took too long");
    ended.check(ended.tool_result(1).len() < 100_000, "the listing is too long");
}

#[test]
fn a_read_only_workspace_is_read_and_says_that_it_is_not_written() {
    let starter = ["setpriv", "--bounding-set=-all"];
    if !works(&starter) {
        return;
    }
    let runtime = Runtime::new().tools_named(&["filesystem"]).file("a.txt", "one\n").started_by(&starter);
    let chmod = |path: std::path::PathBuf, mode: &str| Command::new("chmod").arg(mode).arg(path).status().unwrap();
    chmod(runtime.workspace(), "555");
    let ended = calling(
        runtime,
        &[
            ("read_file", json!({"path": "a.txt"})),
            ("write_file", json!({"path": "a.txt", "content": "x"})),
            ("edit_file", json!({"path": "a.txt", "old_text": "one", "new_text": "x"})),
            ("write_file", json!({"path": "new/b.txt", "content": "x"})),
        ],
    );
    chmod(ended.workspace(), "755");
    ended.tool_result_has(1, "one").file_is("a.txt", "one\n");
    for number in [2, 3, 4] {
        ended.tool_result_has(number, "failed").tool_result_has(number, "permission denied");
    }
}

#[test]
fn a_full_disk_leaves_the_old_content_and_nothing_beside_it() {
    let script = "mount -t tmpfs -o size=64k tmpfs . && cd . && exec \"$0\"";
    let starter = ["unshare", "--mount", "sh", "-c"];
    if !works(&["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt && exec \"$0\""]) {
        return;
    }
    let starter = [&starter[..], &[script]].concat();
    let runtime = Runtime::new().tools_named(&["filesystem"]).started_by(&starter);
    // The process started in the directory beneath the mount; by its name it gets to the mounted one.
    let workspace = runtime.workspace();
    let runtime = runtime.env("THOUGHTMESH_WORKSPACE", workspace.to_str().unwrap());
    let ended = calling(
        runtime,
        &[
            ("write_file", json!({"path": "a.txt", "content": "one\n"})),
            ("write_file", json!({"path": "a.txt", "content": "x".repeat(200_000)})),
            ("read_file", json!({"path": "a.txt"})),
            ("list_directory", json!({})),
        ],
    );
    ended.tool_result_has(2, "no space left").tool_result_has(3, "one\n");
    ended.check(ended.tool_result(4).lines().count() == 1, "something is left beside it");
}
