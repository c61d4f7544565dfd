//! The tool `code_analyzer`: what it counts, what it ranks, and what it leaves out.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Runtime};

fn calling(runtime: Runtime, calls: &[Value]) -> Ended {
    let calls = calls.iter().map(|arguments| chat::tool_call("code_analyzer", arguments.clone()));
    let last = chat::finish(json!({"status": "failed", "summary": "The test is over.", "key_results": []}));
    let ended = runtime.plays(calls.chain([last])).run();
    ended.exits(1).reason("gave_up");
    ended
}

fn with_analyzer() -> Runtime {
    Runtime::new().tools(json!([{"name": "code_analyzer", "config": {}}]))
}

/// Without git or anything else to start, as in a scratch image.
fn alone() -> Runtime {
    with_analyzer().env("PATH", "/nowhere")
}

const SLOW: &str = "def slow(items):\n    for a in items:\n        for b in items:\n            for c in items:\n                if a and b or c:\n                    print(a)\n";

/// One function of many lines in Rust.
fn long_function(lines: usize) -> String {
    let body: String = (0..lines).map(|number| format!("    if x == {number} {{ step_{number}(); }}\n")).collect();
    format!("// A comment.\n\nfn long(x: u32) {{\n{body}}}\n")
}

#[test]
fn lines_are_counted_by_language() {
    let ended = calling(
        alone()
            .file("a.rs", "// one\n\nfn f() {}\nfn g() {}\n")
            .file("b.go", "package b\n")
            .file("c.py", "# one\nx = 1\n")
            .file("d.js", "let x\n")
            .file("e.ts", "let x\n")
            .file("F.java", "class F {}\n")
            .file("g.c", "int x;\n")
            .file("h.cpp", "int x;\n")
            .file("run", "#!/bin/sh\necho\n")
            .file("i.yaml", "a: b\n"),
        &[json!({})],
    );
    ended.tool_result_has(1, "Rust: 1, 2, 1, 1\n").tool_result_has(1, "Python: 1, 1, 1, 0\n");
    ended.tool_result_has(1, "shell: 1, 1, 1, 0\n");
    for language in ["Go", "JavaScript", "TypeScript", "Java", "C", "C++", "YAML"] {
        ended.tool_result_has(1, &format!("\n{language}: 1, 1, 0, 0\n"));
    }
}

#[test]
fn hot_spots_are_ranked_with_their_places() {
    let ended = calling(
        alone().file("src/long.rs", long_function(60)).file("src/slow.py", SLOW).file("src/fine.go", "func f() {\n}\n"),
        &[json!({})],
    );
    let result = ended.tool_result(1);
    let hot = result.split("Hot spots").nth(1).unwrap().split("\n\n").next().unwrap();
    let places: Vec<&str> = hot.lines().skip(1).filter_map(|line| line.split(' ').nth(1)).collect();
    ended.check(places == ["src/long.rs:3", "src/slow.py:1"], &format!("the places are {places:?}"));
    ended.tool_result_has(1, "src/slow.py:1 slow: 6 lines, 6 branches, nesting 4, loops 3 deep");
    ended.tool_result_has(1, "src/long.rs:3 long: 62 lines, 60 branches");
    for title in ["Largest functions", "Most branches", "Deepest nesting", "Loops within loops", "Largest files"] {
        ended.tool_result_has(1, title);
    }
}

#[test]
fn five_hot_spots_can_be_had() {
    let runtime =
        (0..9).fold(alone(), |runtime, number| runtime.file(&format!("part{number}.rs"), long_function(20 + number)));
    let ended = calling(runtime, &[json!({"limit": 5})]);
    let result = ended.tool_result(1);
    let hot = result.split("Hot spots").nth(1).unwrap().split("\n\n").next().unwrap();
    ended.check(hot.lines().count() == 6 && hot.contains("1. part8.rs:3"), hot);
}

#[test]
fn repeated_blocks_are_found() {
    let block: String = (0..30).map(|number| format!("    work_{number}(one, two);\n")).collect();
    let ended = calling(
        alone()
            .file("a.c", format!("void a() {{\n{block}}}\n"))
            .file("b.c", format!("int x;\nvoid b() {{\n{block}}}\n")),
        &[json!({})],
    );
    ended.tool_result_has(1, "repeats about").tool_result_has(1, "of a.c:").tool_result_has(1, "b.c:");
}

#[test]
fn a_path_may_be_a_directory_or_a_file() {
    let ended = calling(
        alone().file("a/x.rs", long_function(10)).file("b/y.py", SLOW),
        &[json!({"path": "a"}), json!({"path": "b/y.py"}), json!({"path": "nowhere"}), json!({"path": "../.."})],
    );
    ended.tool_result_has(1, "a/x.rs").tool_result_lacks(1, "y.py").tool_result_has(2, "b/y.py:1 slow");
    ended.tool_result_has(3, "nowhere").tool_result_has(4, "outside the workspace");
}

#[test]
fn what_is_ignored_or_no_source_is_left_out_and_said() {
    let runtime = alone()
        .file(".gitignore", "target/\n*.gen.rs\n/only-here.rs\n")
        .file("a.rs", "fn a() {}\n")
        .file("target/x.rs", long_function(50))
        .file("b.gen.rs", long_function(50))
        .file("only-here.rs", long_function(50))
        .file("deep/only-here.rs", "fn d() {}\n")
        .file("deep/.gitignore", "!keep.gen.rs\n")
        .file("deep/keep.gen.rs", "fn k() {}\n")
        .file("c.js", format!("x={}", "1+".repeat(100_000)))
        .file("d.py", [0_u8, 159, 146, 150].repeat(100))
        .file("e.c", "int x;\n".repeat(400_000))
        .file("image.png", "x");
    let ended = calling(runtime, &[json!({})]);
    ended.tool_result_has(1, "Rust: 3, 3, 0, 0");
    for what in ["3 named by .gitignore", "1 minified", "1 binary", "1 larger than 2 MiB", "of no known language"] {
        ended.tool_result_has(1, what);
    }
}

#[test]
fn an_empty_tree_is_said() {
    calling(alone(), &[json!({})]).tool_result_has(1, "no source file");
}

#[test]
fn links_out_of_the_workspace_are_not_followed() {
    let runtime = alone()
        .file_outside("outside/x.rs", long_function(30))
        .link("out", "../outside")
        .link("y.rs", "../outside/x.rs");
    calling(runtime, &[json!({})]).tool_result_has(1, "no source file");
}

#[test]
fn files_that_change_most_are_told_where_there_is_a_history() {
    let runtime = with_analyzer().file("a.rs", "fn a() {}\n").file("src/b.rs", "fn b() {}\n");
    let script = "git init -q -b main && git add . && git commit -q -m one && \
                  for i in 1 2 3; do echo '// x' >> src/b.rs; git commit -q -a -m $i; done";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).current_dir(runtime.workspace()).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for name in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{name}_NAME"), "Ada").env(format!("GIT_{name}_EMAIL"), "ada@example.com");
    }
    assert!(command.status().unwrap().success());
    let ended = calling(runtime, &[json!({}), json!({"path": "src"})]);
    ended.tool_result_has(1, "Files that change most\n1. src/b.rs:1 4 commits\n2. a.rs:1 1 commits");
    ended.tool_result_has(2, "1. src/b.rs:1 4 commits").tool_result_lacks(2, "a.rs");
}

#[test]
fn the_result_keeps_its_limit() {
    let runtime = Runtime::new().tools(json!([{"name": "code_analyzer", "config": {"output_bytes_max": 2000}}]));
    let runtime = (0..60)
        .fold(runtime, |runtime, number| runtime.file(&format!("a-rather-long-name-{number}.rs"), long_function(40)));
    let ended = calling(runtime, &[json!({"limit": 50})]);
    ended.check(ended.tool_result(1).len() <= 2000, "it is too long").tool_result_has(1, "cut here");
}

#[test]
fn a_limit_in_time_is_kept_and_said() {
    let runtime = Runtime::new().tools(json!([{"name": "code_analyzer", "config": {"timeout_seconds": 1}}]));
    for number in 0..300 {
        let text = long_function(3_000);
        let path = runtime.workspace().join(format!("{number}.rs"));
        std::fs::write(path, text).unwrap();
    }
    // On a fast machine it is done before; then nothing is left out.
    let ended = calling(runtime, &[json!({})]);
    ended.check(ended.duration < Duration::from_secs(15), "it took too long");
}

#[test]
fn the_seeds_tools_work() {
    let ended = Runtime::new()
        .tools(json!([{"name": "code_analyzer", "config": {}}, {"name": "git", "config": {}}]))
        .plays([chat::achieved(0)])
        .run();
    ended.exits(0).check(ended.request(1).tool_names() == ["code_analyzer", "finish", "git"], "the tools offered");
}
