//! The file tools and the shell, called by a model: what they do, what they refuse, and that no mistake of the model's ends
//! the run.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{API_KEY, Ended, Runtime};
use crate::server::Exchange;

/// What a tool result may hold at most; far above any sensible limit, far below what these tests produce.
const RESULT_BYTES_MAX: usize = 300_000;
/// Less than any of the commands here would take if nobody ended it.
const SOON: Duration = Duration::from_secs(20);
const OUTSIDE: &str = "marker-of-the-outside";

fn with_files() -> Runtime {
    Runtime::new().tools_named(&["filesystem"])
}

fn with_shell() -> Runtime {
    Runtime::new().tools_named(&["shell"])
}

/// Makes these calls one turn after the other, and finishes. A success first, so that a failure can be followed by a finish.
fn calling<const N: usize>(runtime: Runtime, calls: [(&str, Value); N]) -> Ended {
    let calls = calls.into_iter().map(|(name, arguments)| chat::tool_call(name, arguments));
    let last = chat::finish(json!({"status": "failed", "summary": "The test is over.", "key_results": []}));
    let ended = runtime.plays(calls.chain([last])).run();
    ended.exits(1).reason("gave_up");
    ended
}

// Which tools there are.

#[test]
fn only_finish_is_offered_without_tools() {
    let ended = Runtime::new().plays([chat::achieved(0)]).run();
    ended.check(ended.request(1).tool_names() == ["finish"], "other tools are offered");
}

#[test]
fn only_the_tools_of_the_configuration_are_offered() {
    let ended = Runtime::new().tools_named(&["shell", "read_file"]).plays([chat::achieved(0)]).run();
    ended.check(ended.request(1).tool_names() == ["finish", "read_file", "shell"], "the tools offered");
}

#[test]
fn filesystem_is_all_six_file_tools() {
    let ended = with_files().plays([chat::achieved(0)]).run();
    let six = ["edit_file", "find_files", "finish", "list_directory", "read_file", "search_text", "write_file"];
    ended.check(ended.request(1).tool_names() == six, "the tools offered");
}

#[test]
fn each_file_tool_can_be_had_alone() {
    for name in ["read_file", "write_file", "edit_file", "list_directory", "find_files", "search_text"] {
        let ended = Runtime::new().tools_named(&[name]).plays([chat::achieved(0)]).run();
        ended.exits(0).check(ended.request(1).tool_names().contains(&name.to_owned()), name);
    }
}

#[test]
fn tool_results_answer_their_calls() {
    let turn = chat::tool_calls(&[
        ("first", "read_file", json!({"path": "a.txt"})),
        ("second", "read_file", json!({"path": "b.txt"})),
    ]);
    let ended = with_files().file("a.txt", "AAA").file("b.txt", "BBB").plays([turn, chat::achieved(0)]).run();
    for (id, text) in [("first", "AAA"), ("second", "BBB")] {
        let messages = ended.request(2).messages();
        let answer = messages.iter().find(|message| message["tool_call_id"] == id).cloned().unwrap_or_default();
        ended.check(answer["content"].as_str().is_some_and(|content| content.contains(text)), id);
    }
}

// Mistakes of the model's.

#[test]
fn an_unknown_tool_is_answered_with_the_known_ones() {
    let ended = calling(with_files(), [("teleport", json!({"to": "Mars"}))]);
    ended.tool_result_has(1, "teleport").tool_result_has(1, "read_file");
}

#[test]
fn a_tool_that_was_not_offered_does_not_run() {
    let runtime = Runtime::new().tools_named(&["read_file"]);
    let ended = calling(runtime, [("write_file", json!({"path": "a.txt", "content": "x"}))]);
    ended.tool_result_has(1, "write_file").check(ended.file("a.txt").is_none(), "it ran");
}

fn raw_call(name: &str, arguments: &str) -> Exchange {
    let call = chat::call("raw", name, json!(arguments));
    chat::message(json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
}

#[test]
fn arguments_that_are_not_json_are_answered() {
    let read = chat::tool_call("read_file", json!({"path": "a.txt"}));
    let broken = raw_call("read_file", "{\"path\": \"a.txt\"");
    let ended = with_files().file("a.txt", "x").plays([broken, read, chat::achieved(0)]).run();
    ended.exits(0).tool_result_has(1, "json");
}

#[test]
fn arguments_that_are_no_object_are_answered() {
    for arguments in ["[\"a.txt\"]", "3", "true"] {
        let read = chat::tool_call("read_file", json!({"path": "a.txt"}));
        let ended =
            with_files().file("a.txt", "x").plays([raw_call("read_file", arguments), read, chat::achieved(0)]).run();
        ended.exits(0).tool_result_has(1, "object");
    }
}

#[test]
fn a_missing_argument_is_named() {
    let ended = calling(with_files(), [("write_file", json!({"path": "a.txt"}))]);
    ended.tool_result_has(1, "content").check(ended.file("a.txt").is_none(), "it was written");
}

#[test]
fn an_argument_of_the_wrong_type_is_named() {
    let ended = calling(
        with_files(),
        [
            ("write_file", json!({"path": 7, "content": "x"})),
            ("write_file", json!({"path": "a.txt", "content": ["x"]})),
        ],
    );
    ended.tool_result_has(1, "path").tool_result_has(2, "content");
}

// Reading.

#[test]
fn a_file_is_read() {
    calling(with_files().file("docs/a.txt", "one\ntwo\n"), [("read_file", json!({"path": "docs/a.txt"}))])
        .tool_result_has(1, "one\n")
        .tool_result_has(1, "two");
}

#[test]
fn a_path_may_begin_with_a_dot() {
    calling(with_files().file("docs/a.txt", "one"), [("read_file", json!({"path": "./docs/../docs/a.txt"}))])
        .tool_result_has(1, "one");
}

#[test]
fn an_empty_file_is_read() {
    let ended = with_files()
        .file("a.txt", "")
        .plays([chat::tool_call("read_file", json!({"path": "a.txt"})), chat::achieved(0)])
        .run();
    ended.exits(0);
}

#[test]
fn a_part_of_a_file_is_read() {
    let lines: Vec<String> = (1..=100).map(|number| format!("line-{number:03}")).collect();
    let ended = calling(
        with_files().file("a.txt", lines.join("\n")),
        [("read_file", json!({"path": "a.txt", "offset": 40, "limit": 3}))],
    );
    ended.tool_result_has(1, "line-041").tool_result_lacks(1, "line-045").tool_result_lacks(1, "line-038");
}

#[test]
fn an_offset_beyond_the_end_is_answered() {
    calling(with_files().file("a.txt", "one\n"), [("read_file", json!({"path": "a.txt", "offset": 4000}))])
        .tool_result_lacks(1, "one");
}

#[test]
fn a_missing_file_is_named() {
    calling(with_files(), [("read_file", json!({"path": "docs/missing.txt"}))]).tool_result_has(1, "missing.txt");
}

#[test]
fn a_directory_is_not_read() {
    calling(with_files().file("docs/a.txt", "x"), [("read_file", json!({"path": "docs"}))])
        .tool_result_has(1, "directory");
}

#[test]
fn bytes_that_are_not_text_do_not_end_the_run() {
    let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let ended = calling(with_files().file("a.bin", bytes), [("read_file", json!({"path": "a.bin"}))]);
    ended.check(!ended.tool_result(1).is_empty(), "an empty result");
}

/// The result is bounded and says that it is not all.
#[track_caller]
fn was_cut(ended: &Ended, number: usize) {
    let result = ended.tool_result(number).to_lowercase();
    ended.check(result.len() < RESULT_BYTES_MAX, &format!("the result has {} bytes", result.len()));
    let says_so = ["cut", "omitted", "left out", "truncated", "not shown", "are shown", "stopped", "follow", " more "]
        .iter()
        .any(|word| result.contains(word));
    ended.check(says_so, "the result does not say that it was cut");
}

#[test]
fn a_large_file_is_cut_with_a_note() {
    let lines: String = (1..=400_000).map(|number| format!("line-{number}\n")).collect();
    let ended = calling(with_files().file("a.txt", lines), [("read_file", json!({"path": "a.txt"}))]);
    was_cut(&ended, 1);
    ended.tool_result_has(1, "line-1\n").tool_result_has(1, "offset");
}

#[test]
fn a_large_file_of_one_line_is_cut_with_a_note() {
    let ended = calling(with_files().file("a.txt", "ä".repeat(3_000_000)), [("read_file", json!({"path": "a.txt"}))]);
    was_cut(&ended, 1);
}

#[test]
fn a_file_that_is_a_pipe_does_not_hold_the_run() {
    let runtime = with_files();
    let path = runtime.workspace().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    let ended = calling(
        runtime,
        [
            ("read_file", json!({"path": "pipe"})),
            ("write_file", json!({"path": "pipe", "content": "x"})),
            ("search_text", json!({"pattern": "x"})),
        ],
    );
    ended.check(ended.duration < SOON, "it took too long");
}

// Writing and editing.

#[test]
fn a_file_is_written() {
    calling(with_files(), [("write_file", json!({"path": "a.txt", "content": "one\ntwo\n"}))])
        .file_is("a.txt", "one\ntwo\n");
}

#[test]
fn a_file_is_written_over() {
    calling(with_files().file("a.txt", "a longer text"), [("write_file", json!({"path": "a.txt", "content": "x"}))])
        .file_is("a.txt", "x");
}

#[test]
fn missing_directories_are_made() {
    calling(with_files(), [("write_file", json!({"path": "docs/new/a.txt", "content": "x"}))])
        .file_is("docs/new/a.txt", "x");
}

#[test]
fn a_directory_is_not_written_over() {
    let ended =
        calling(with_files().file("docs/a.txt", "x"), [("write_file", json!({"path": "docs", "content": "x"}))]);
    ended.tool_result_has(1, "docs").file_is("docs/a.txt", "x");
}

#[test]
fn a_text_is_replaced() {
    calling(
        with_files().file("a.txt", "one two three"),
        [("edit_file", json!({"path": "a.txt", "old_text": "two", "new_text": "2"}))],
    )
    .file_is("a.txt", "one 2 three");
}

#[test]
fn a_text_is_replaced_by_nothing() {
    calling(
        with_files().file("a.txt", "one two three"),
        [("edit_file", json!({"path": "a.txt", "old_text": " two", "new_text": ""}))],
    )
    .file_is("a.txt", "one three");
}

#[test]
fn a_text_that_is_not_there_leaves_the_file_alone() {
    calling(
        with_files().file("a.txt", "one two"),
        [("edit_file", json!({"path": "a.txt", "old_text": "three", "new_text": "3"}))],
    )
    .tool_result_has(1, "a.txt")
    .file_is("a.txt", "one two");
}

#[test]
fn a_text_that_is_there_twice_leaves_the_file_alone() {
    calling(
        with_files().file("a.txt", "one two one"),
        [("edit_file", json!({"path": "a.txt", "old_text": "one", "new_text": "1"}))],
    )
    .tool_result_has(1, "2")
    .file_is("a.txt", "one two one");
}

#[test]
fn an_empty_text_is_not_replaced() {
    calling(
        with_files().file("a.txt", "one"),
        [("edit_file", json!({"path": "a.txt", "old_text": "", "new_text": "x"}))],
    )
    .tool_result_has(1, "old_text")
    .file_is("a.txt", "one");
}

#[test]
fn a_missing_file_is_not_edited() {
    let ended = calling(with_files(), [("edit_file", json!({"path": "a.txt", "old_text": "x", "new_text": "y"}))]);
    ended.tool_result_has(1, "a.txt").check(ended.file("a.txt").is_none(), "it was made");
}

// Listing and searching.

#[test]
fn a_directory_is_listed() {
    calling(
        with_files().file("docs/a.txt", "x").file("docs/inner/b.txt", "x"),
        [("list_directory", json!({"path": "docs"}))],
    )
    .tool_result_has(1, "a.txt")
    .tool_result_has(1, "inner");
}

#[test]
fn the_workspace_is_listed_without_a_path() {
    calling(with_files().file("here.txt", "x"), [("list_directory", json!({}))]).tool_result_has(1, "here.txt");
}

#[test]
fn a_listing_is_in_order() {
    let runtime =
        ["c", "a", "d", "b"].iter().fold(with_files(), |runtime, name| runtime.file(&format!("{name}.txt"), "x"));
    let ended = calling(runtime, [("list_directory", json!({}))]);
    let places: Vec<_> =
        ["a.txt", "b.txt", "c.txt", "d.txt"].iter().map(|name| ended.tool_result(1).find(name)).collect();
    ended.check(places.is_sorted(), "the names are not in order");
}

#[test]
fn a_missing_directory_is_named() {
    calling(with_files(), [("list_directory", json!({"path": "nowhere"}))]).tool_result_has(1, "nowhere");
}

#[test]
fn a_directory_of_many_files_is_cut_with_a_note() {
    let runtime = with_files();
    for number in 0..20_000 {
        std::fs::write(runtime.workspace().join(format!("a-file-with-a-long-name-{number}.txt")), "").unwrap();
    }
    let ended = calling(runtime, [("list_directory", json!({})), ("find_files", json!({"pattern": "*.txt"}))]);
    was_cut(&ended, 1);
    was_cut(&ended, 2);
}

fn tree() -> Runtime {
    with_files()
        .file("src/main.rs", "fn main() { start(); }\n")
        .file("src/inner/door.rs", "// the red door\nfn open() {}\n")
        .file("notes.txt", "a red door\nand a blue one\n")
}

#[test]
fn files_are_found_by_a_pattern() {
    calling(tree(), [("find_files", json!({"pattern": "**/*.rs"}))])
        .tool_result_has(1, "src/main.rs")
        .tool_result_has(1, "src/inner/door.rs")
        .tool_result_lacks(1, "notes.txt");
}

#[test]
fn files_are_found_beneath_a_path() {
    calling(tree(), [("find_files", json!({"pattern": "**/*.rs", "path": "src/inner"}))])
        .tool_result_has(1, "door.rs")
        .tool_result_lacks(1, "main.rs");
}

#[test]
fn nothing_found_is_said() {
    let ended =
        calling(tree(), [("find_files", json!({"pattern": "*.go"})), ("search_text", json!({"pattern": "green"}))]);
    for number in [1, 2] {
        ended.check(!ended.tool_result(number).trim().is_empty(), "an empty result");
    }
}

#[test]
fn a_text_is_found_with_its_file_and_line() {
    calling(tree(), [("search_text", json!({"pattern": "red door"}))])
        .tool_result_has(1, "notes.txt:1")
        .tool_result_has(1, "src/inner/door.rs:1")
        .tool_result_lacks(1, "blue");
}

#[test]
fn a_text_is_found_beneath_a_path() {
    calling(tree(), [("search_text", json!({"pattern": "red door", "path": "src"}))])
        .tool_result_has(1, "door.rs")
        .tool_result_lacks(1, "notes.txt");
}

#[test]
fn very_many_finds_are_cut_with_a_note() {
    let text = "a red door stands here, wide open\n".repeat(100_000);
    let ended = calling(with_files().file("a.txt", text), [("search_text", json!({"pattern": "red door"}))]);
    was_cut(&ended, 1);
}

#[test]
fn a_find_in_a_very_long_line_is_cut() {
    let text = format!("{} red door {}", "a".repeat(2_000_000), "b".repeat(2_000_000));
    let ended = calling(with_files().file("a.txt", text), [("search_text", json!({"pattern": "red door"}))]);
    ended.check(ended.tool_result(1).len() < RESULT_BYTES_MAX, "the result is too long");
}

// The wall around the workspace.

/// Calls every file tool with this path; nothing of the outside comes in, and nothing goes out.
#[track_caller]
fn stays_inside(runtime: Runtime, path: &str) {
    let runtime = runtime.file_outside("outside/secret.txt", format!("{OUTSIDE}\n"));
    let ended = calling(
        runtime,
        [
            ("read_file", json!({"path": path})),
            ("write_file", json!({"path": path, "content": "broken"})),
            ("edit_file", json!({"path": path, "old_text": OUTSIDE, "new_text": "broken"})),
            ("list_directory", json!({"path": path})),
            ("find_files", json!({"pattern": "**/*.txt", "path": path})),
            ("search_text", json!({"pattern": "of-the-outside", "path": path})),
        ],
    );
    let untouched = ended.file_outside("outside/secret.txt").is_some_and(|text| text == format!("{OUTSIDE}\n"));
    ended.check(untouched, "the file outside was changed");
    for number in 1..=6 {
        ended.tool_result_lacks(number, OUTSIDE).check(!ended.tool_result(number).is_empty(), "an empty result");
    }
    for number in [4, 5, 6] {
        ended.tool_result_lacks(number, "secret.txt\n");
    }
}

#[test]
fn a_path_does_not_lead_up() {
    stays_inside(with_files(), "../outside/secret.txt");
    stays_inside(with_files(), "../outside");
    stays_inside(with_files().file("docs/a.txt", "x"), "docs/../../outside/secret.txt");
}

#[test]
fn a_path_is_not_absolute() {
    let runtime = with_files();
    let path = runtime.path_outside("outside/secret.txt");
    stays_inside(runtime, path.to_str().unwrap());
}

#[test]
fn a_link_to_a_file_outside_is_not_followed() {
    stays_inside(with_files().link("link.txt", "../outside/secret.txt"), "link.txt");
}

#[test]
fn a_link_to_a_directory_outside_is_not_followed() {
    stays_inside(with_files().link("link", "../outside"), "link/secret.txt");
    stays_inside(with_files().link("link", "../outside"), "link");
}

#[test]
fn an_absolute_link_is_not_followed() {
    let runtime = with_files();
    let target = runtime.path_outside("outside");
    stays_inside(runtime.link("link", target), "link/secret.txt");
}

#[test]
fn a_search_does_not_wander_off_through_a_link() {
    let runtime = with_files().file("in.txt", "of-the-inside\n").link("link", "../outside");
    let runtime = runtime.file_outside("outside/secret.txt", OUTSIDE);
    let ended = calling(
        runtime,
        [("search_text", json!({"pattern": "of-the"})), ("find_files", json!({"pattern": "**/*.txt"}))],
    );
    ended.tool_result_has(1, "of-the-inside").tool_result_lacks(1, OUTSIDE).tool_result_lacks(2, "secret.txt");
}

#[test]
fn links_in_a_circle_do_not_hold_the_run() {
    let runtime = with_files().file("docs/a.txt", "red door").link("docs/again", ".").link("self", "self");
    let ended = calling(
        runtime,
        [
            ("search_text", json!({"pattern": "red door"})),
            ("find_files", json!({"pattern": "**/*.txt"})),
            ("read_file", json!({"path": "self"})),
        ],
    );
    ended.check(ended.duration < SOON, "it took too long").tool_result_has(1, "docs/a.txt");
}

#[test]
fn a_new_file_is_not_made_outside() {
    let ended = calling(
        with_files().link("link", ".."),
        [
            ("write_file", json!({"path": "../new.txt", "content": "x"})),
            ("write_file", json!({"path": "link/new.txt", "content": "x"})),
        ],
    );
    ended.check(ended.file_outside("new.txt").is_none(), "a file was made outside");
}

#[test]
fn a_path_with_a_zero_byte_is_answered() {
    calling(with_files(), [("read_file", json!({"path": "a\u{0}b"}))]);
}

#[test]
fn an_empty_path_is_answered() {
    calling(with_files(), [("read_file", json!({"path": ""})), ("write_file", json!({"path": "", "content": "x"}))]);
}

#[test]
fn a_very_long_path_is_answered() {
    calling(with_files(), [("read_file", json!({"path": "a/".repeat(5000)}))]);
}

// The shell.

#[test]
fn a_command_tells_its_output() {
    calling(with_shell(), [("shell", json!({"command": "echo hello; echo oops >&2"}))])
        .tool_result_has(1, "hello")
        .tool_result_has(1, "oops");
}

#[test]
fn a_command_tells_its_exit_status() {
    calling(with_shell(), [("shell", json!({"command": "echo hello; exit 37"}))])
        .tool_result_has(1, "hello")
        .tool_result_has(1, "37");
}

#[test]
fn a_command_that_a_signal_ended_says_so() {
    calling(with_shell(), [("shell", json!({"command": "kill -9 $$"}))]).tool_result_has(1, "signal");
}

#[test]
fn a_command_runs_in_the_workspace() {
    calling(with_shell().file("here.txt", "x"), [("shell", json!({"command": "ls; echo x > made.txt"}))])
        .tool_result_has(1, "here.txt")
        .file_is("made.txt", "x\n");
}

#[test]
fn a_command_may_have_pipes_and_lines() {
    calling(with_shell(), [("shell", json!({"command": "for i in 1 2 3; do\n  echo $i\ndone | tail -n 1"}))])
        .tool_result_has(1, "3")
        .tool_result_lacks(1, "1\n2");
}

#[test]
fn a_command_has_nothing_to_read() {
    let ended = calling(with_shell(), [("shell", json!({"command": "cat; echo over"}))]);
    ended.tool_result_has(1, "over").check(ended.duration < SOON, "it waited");
}

#[test]
fn a_command_without_output_is_answered() {
    let ended = calling(with_shell(), [("shell", json!({"command": "true"}))]);
    ended.check(!ended.tool_result(1).trim().is_empty(), "an empty result");
}

#[test]
fn output_that_is_not_utf8_does_not_end_the_run() {
    calling(with_shell(), [("shell", json!({"command": "printf 'a\\377\\376b\\000c'"}))]).tool_result_has(1, "a");
}

#[test]
fn much_output_is_cut_in_its_middle() {
    let ended = calling(with_shell(), [("shell", json!({"command": "seq 1 3000000; echo the end"}))]);
    was_cut(&ended, 1);
    ended.tool_result_has(1, "1\n2\n3\n").tool_result_has(1, "2999999\n3000000\nthe end");
}

#[test]
fn much_output_of_errors_is_cut_too() {
    let ended = calling(with_shell(), [("shell", json!({"command": "seq 1 3000000 >&2"}))]);
    was_cut(&ended, 1);
}

#[test]
fn a_command_that_takes_too_long_is_ended() {
    let runtime = Runtime::new().tools(json!([{"name": "shell", "config": {"timeout_seconds": 1}}]));
    let ended = calling(runtime, [("shell", json!({"command": "echo started; sleep 300"}))]);
    ended.tool_result_has(1, "started").tool_result_has(1, "1 s").check(ended.duration < SOON, "it was not ended");
}

#[test]
fn a_call_may_ask_for_less_time() {
    let ended = calling(with_shell(), [("shell", json!({"command": "echo started; sleep 300", "timeout_seconds": 1}))]);
    ended.tool_result_has(1, "started").check(ended.duration < SOON, "it was not ended");
}

#[test]
fn a_call_can_not_ask_for_more_time_than_its_entry_gives() {
    let runtime = Runtime::new().tools(json!([{"name": "shell", "config": {"timeout_seconds": 1}}]));
    let ended = calling(runtime, [("shell", json!({"command": "sleep 300", "timeout_seconds": 300}))]);
    ended.check(ended.duration < SOON, "it was not ended");
}

#[test]
fn a_command_that_ignores_the_signal_is_ended() {
    let runtime = Runtime::new().tools(json!([{"name": "shell", "config": {"timeout_seconds": 1}}]));
    let ended = calling(runtime, [("shell", json!({"command": "trap '' TERM; while :; do sleep 1; done"}))]);
    ended.check(ended.duration < SOON, "it was not ended");
}

#[test]
fn a_child_left_behind_does_not_hold_the_run() {
    let runtime = Runtime::new().tools(json!([{"name": "shell", "config": {"timeout_seconds": 2}}]));
    let ended = calling(runtime, [("shell", json!({"command": "sleep 300 & echo started"}))]);
    ended.tool_result_has(1, "started").check(ended.duration < SOON, "it was waited for");
}

#[test]
fn a_command_does_not_see_our_variables() {
    let runtime = with_shell().env("DEPLOY_TOKEN", "marker-51b0e2").env("TICKET_ID", "OPS-4711");
    let ended = calling(runtime, [("shell", json!({"command": "env"}))]);
    for text in ["THOUGHTMESH_", API_KEY, "marker-51b0e2", "OPS-4711"] {
        ended.tool_result_lacks(1, text);
    }
    ended.tool_result_has(1, "PATH=");
}

#[test]
fn a_command_sees_what_its_entry_lists() {
    let tools = json!([{"name": "shell", "config": {"env": {"REGION": "${HOME_REGION}", "COLOR": "red"}}}]);
    let ended = calling(
        Runtime::new().tools(tools).env("HOME_REGION", "north"),
        [("shell", json!({"command": "echo $REGION $COLOR"}))],
    );
    ended.tool_result_has(1, "north red");
}

#[test]
fn a_command_can_not_read_our_environment() {
    let ended =
        calling(with_shell(), [("shell", json!({"command": "tr '\\0' '\\n' < /proc/$PPID/environ; echo over"}))]);
    ended.tool_result_lacks(1, API_KEY).tool_result_has(1, "over");
}
