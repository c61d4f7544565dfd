//! Measures, and judges nothing: `just bench`. Each number is printed with what it is of.
//!
//! It runs the built executable, with the provider `replay` in place of a model, in a directory of its own. What may surprise:
//! peak memory is asked by a tool of the run itself, from `/proc`, so that it is the kernel's own number.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

const LINES: usize = 1_000_000;
const LINES_OF_A_FILE: usize = 1_000;
const GIGABYTE: u64 = 1_000_000_000;
/// Writes the peak memory of the runtime, in kilobytes.
const PEAK: &str = "awk '/VmHWM/ {print $2}' /proc/$PPID/status";

fn main() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    analyzer(&place.join("analyzer"));
    output(&place.join("output"));
    let _ = std::fs::remove_dir_all(&place);
}

/// Lines per second of `code_analyzer` on a tree of a million lines.
fn analyzer(place: &Path) {
    for number in 0..LINES / LINES_OF_A_FILE {
        let (extension, text) = source(number);
        let directory = place.join(format!("part{}", number % 40));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("file{number}.{extension}")), text).unwrap();
    }
    let nothing = run(place, &[]);
    let whole = run(place, &[("code_analyzer", json!({}))]);
    let shell = run(place, &[("code_analyzer", json!({})), ("shell", json!({"command": format!("{PEAK} > peak")}))]);
    assert!(nothing > 0.0 && shell > 0.0);
    let seconds = (whole - nothing).max(0.001);
    println!(
        "code_analyzer: {LINES} lines in {seconds:.2} s, {:.1} million lines per second, peak memory {:.1} MiB",
        LINES as f64 / seconds / 1e6,
        mebibytes(&place.join("peak"))
    );
}

/// A file of a thousand lines that is like code: functions, comments, texts, loops, in turn in several languages.
fn source(number: usize) -> (&'static str, String) {
    let (extension, function, end) = match number % 4 {
        0 => (
            "rs",
            "fn work_N(items: &[u32]) -> u32 {\n    // adds up what is even\n    let mut sum = 0;\n    for item in items {\n        if item % 2 == 0 && *item > M {\n            sum += item; /* M */\n        }\n    }\n    println!(\"{sum} of {}\", items.len());\n    sum\n",
            "}\n",
        ),
        1 => (
            "go",
            "func work_N(items []int) int {\n\t// adds up what is even\n\tsum := 0\n\tfor _, item := range items {\n\t\tif item%2 == 0 && item > M {\n\t\t\tsum += item\n\t\t}\n\t}\n\tfmt.Println(\"sum\", sum)\n\treturn sum\n",
            "}\n",
        ),
        2 => (
            "py",
            "def work_N(items):\n    \"\"\"Adds up what is even.\"\"\"\n    total = 0\n    for item in items:\n        for other in items:\n            if item % 2 == 0 and other > M:\n                total += item  # M\n    print('total', total)\n    return total\n\n",
            "\n",
        ),
        _ => (
            "ts",
            "export function work_N(items: number[]): number {\n  // adds up what is even\n  let sum = 0\n  for (const item of items) {\n    if (item % 2 === 0 && item > M) {\n      sum += item\n    }\n  }\n  console.log(`sum ${sum}`)\n  return sum\n",
            "}\n",
        ),
    };
    let text = (0..LINES_OF_A_FILE / 11 + 1).map(|index| {
        let unique = (number * 1_000 + index).to_string();
        function.replace(['N', 'M'], &unique) + end
    });
    let lines: Vec<String> = text.collect::<String>().lines().take(LINES_OF_A_FILE).map(str::to_owned).collect();
    (extension, lines.join("\n") + "\n")
}

/// Peak memory of the runtime when a tool prints a gigabyte.
fn output(place: &Path) {
    let call = |command: String| ("shell", json!({"command": command}));
    let before = call(format!("{PEAK} > before"));
    let much = call(format!("head -c {GIGABYTE} /dev/zero | tr '\\0' x"));
    let seconds = run(place, &[before, much, call(format!("{PEAK} > after"))]);
    println!(
        "a tool that prints 1 GB: {seconds:.1} s, peak memory {:.1} MiB, {:.1} MiB before it",
        mebibytes(&place.join("after")),
        mebibytes(&place.join("before"))
    );
}

fn mebibytes(file: &PathBuf) -> f64 {
    std::fs::read_to_string(file).unwrap().trim().parse::<f64>().unwrap() / 1024.0
}

/// Runs these calls, one turn each, and returns the seconds that the run took.
fn run(place: &Path, calls: &[(&str, Value)]) -> f64 {
    std::fs::create_dir_all(place).unwrap();
    let finish = json!({"status": "achieved", "summary": "Measured.", "key_results": []});
    let calls = calls.iter().map(|(name, arguments)| (*name, arguments.clone())).chain([("finish", finish)]);
    let turns: Vec<String> = calls
        .enumerate()
        .map(|(index, (name, arguments))| {
            let part = json!({"type": "tool_call", "id": index.to_string(), "name": name, "arguments": arguments});
            json!({"record": "turn", "parts": [part], "stop_reason": "tool_calls"}).to_string()
        })
        .collect();
    let journal = place.join("journal.jsonl");
    std::fs::write(&journal, turns.join("\n")).unwrap();
    let started = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_thoughtmesh-runtime"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("THOUGHTMESH_OBJECTIVE", "measure")
        .env("THOUGHTMESH_MODEL_CONFIG", json!({"provider": "replay", "name": journal}).to_string())
        .env("THOUGHTMESH_TOOLS", json!([{"name": "code_analyzer"}, {"name": "shell"}]).to_string())
        .env("THOUGHTMESH_WORKSPACE", place)
        .output()
        .unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    seconds
}
