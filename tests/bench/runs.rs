//! What a run costs: `just bench`. It measures, and says of each limit of ours whether it is kept.
//!
//! The built executable works through turns with tool results of 4 KiB, against a server in a process of its own. Beside each
//! run stand two floors, measured in the same round: a bare loop that posts the same bytes with the same library, and curl.
//! What may surprise: nothing here fails when a limit is not kept, because a busy machine is not a defect.
//!
//! `--short` measures fewer rounds and no long runs, `--json FILE` writes the numbers to a file.
#![allow(clippy::unwrap_used)]

mod floors;
mod peer;
#[allow(dead_code)]
#[path = "../it/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "../it/tls.rs"]
mod tls;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use self::peer::Script;

const RESULT_BYTES: usize = 4096;
const LARGE_RESULT_BYTES: usize = 10_000_000;
/// So many come only from an MCP server: as entries they would not fit into a variable.
const TOOLS: usize = 5_000;
/// Where the cost of a turn is looked at, as a median over the turns around it.
const GROWTH_TURNS: [usize; 3] = [10, 100, 1000];

// The limits of design.md.
const FIRST_REQUEST_MS_MAX: f64 = 5.0;
const PEAK_MIB_MAX: f64 = 8.0;
const CPU_TIMES_FLOOR_MAX: f64 = 2.0;
const EXECUTABLE_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// A run to measure.
#[derive(Clone, Default)]
struct Case {
    name: &'static str,
    turns: usize,
    rounds: usize,
    is_streamed: bool,
    is_secure: bool,
    /// Tools beside the file tools.
    tools: usize,
    /// Bytes of the first result; the others have [`RESULT_BYTES`].
    first_result_bytes: usize,
    /// Without it, only the bare loop: curl wants each body in a file.
    with_curl: bool,
}

/// The one that was built for this, or another one, to compare with.
fn executable() -> PathBuf {
    std::env::var_os("BENCH_EXECUTABLE").map_or_else(|| env!("CARGO_BIN_EXE_thoughtmesh-runtime").into(), PathBuf::from)
}

fn cases(is_short: bool) -> Vec<Case> {
    let rounds = |long: usize| if is_short { 3 } else { long };
    let plain = |name, turns, rounds| Case {
        name,
        turns,
        rounds,
        is_streamed: true,
        with_curl: true,
        first_result_bytes: RESULT_BYTES,
        ..Case::default()
    };
    let mut cases = vec![
        plain("1 turn", 1, rounds(21)),
        plain("50 turns", 50, rounds(9)),
        plain("200 turns", 200, rounds(7)),
        Case { is_streamed: false, ..plain("200 turns, not streamed", 200, rounds(5)) },
        Case { is_secure: true, ..plain("1 turn, TLS", 1, rounds(9)) },
        Case { is_secure: true, ..plain("50 turns, TLS", 50, rounds(5)) },
        Case { is_secure: true, ..plain("200 turns, TLS", 200, rounds(5)) },
        Case { tools: TOOLS, ..plain("10 turns, 5,000 tools", 10, rounds(5)) },
        Case { first_result_bytes: LARGE_RESULT_BYTES, ..plain("5 turns, first result 10 MB", 5, rounds(5)) },
    ];
    if !is_short {
        cases.push(Case { with_curl: false, ..plain("1000 turns", 1000, 3) });
    }
    cases
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", script] => peer::serve(script),
        ["tools", count] => peer::offer_tools(count.parse().unwrap()),
        ["post", url, recording, authority] => floors::post(url, recording, authority),
        _ => measure(&words),
    }
}

fn measure(words: &[&str]) {
    let is_short = words.contains(&"--short");
    let only = words.iter().position(|word| *word == "--only").map(|place| words[place + 1]);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-runs-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let machine = machine();
    println!("{machine}\n");
    println!(
        "{:<28} {:>9} {:>8} {:>8} {:>6} | {:>14} {:>6} | {:>14} | {:>6} {:>9}",
        "run", "sent MB", "wall s", "CPU s", "MiB", "bare loop CPU", "MiB", "curl CPU", "ratio", "±"
    );
    let mut measured = Vec::new();
    for case in cases(is_short).into_iter().filter(|case| only.is_none_or(|name| name == case.name)) {
        let result = Measured::of(&case, &place.join("work"));
        println!("{}", result.line(&case));
        measured.push((case, result));
    }
    let _ = std::fs::remove_dir_all(&place);
    println!();
    let growth: Vec<Value> =
        measured.iter().filter(|(case, _)| case.name.ends_with("turns")).flat_map(growth).collect();
    for line in &growth {
        println!("{}", line["text"].as_str().unwrap());
    }
    println!();
    let limits = limits(&measured);
    for limit in &limits {
        let word = if limit["kept"] == true { "kept" } else { "NOT KEPT" };
        println!(
            "{:<52} {:>12} of {:>12}  {word}",
            limit["what"].as_str().unwrap(),
            shown(limit, "value"),
            shown(limit, "limit")
        );
    }
    if let Some(file) = words.iter().position(|word| *word == "--json").map(|place| words[place + 1]) {
        let cases: Vec<Value> = measured.iter().map(|(case, result)| result.to_json(case)).collect();
        let whole = json!({"machine": machine, "cases": cases, "growth": growth, "limits": limits});
        std::fs::write(file, format!("{whole:#}\n")).unwrap();
    }
}

fn shown(limit: &Value, field: &str) -> String {
    format!("{} {}", limit[field], limit["unit"].as_str().unwrap())
}

/// What was measured on, and what.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let libc = if cfg!(target_env = "musl") { "static, musl" } else { "NOT the released one: glibc" };
    format!(
        "machine: {} CPUs, {}, Linux {}, load {}; executable: {libc}, {} bytes",
        std::thread::available_parallelism().map_or(0, usize::from),
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        std::fs::metadata(executable()).unwrap().len()
    )
}

/// One process, measured.
#[derive(Clone, Default)]
struct Sample {
    wall: f64,
    cpu: f64,
    peak_mib: f64,
    first_request_ms: f64,
    bytes: u64,
    /// CPU time of each turn, in microseconds.
    turns: Vec<f64>,
}

/// A case, measured: the runtime and its floors.
struct Measured {
    runtime: Vec<Sample>,
    bare: Vec<Sample>,
    curl: Vec<Sample>,
}

impl Measured {
    fn of(case: &Case, place: &Path) -> Measured {
        let work = Work::prepare(case, place);
        // The first run is for the recording alone.
        work.runtime(true);
        let files =
            if case.with_curl { floors::write_bodies(&work.recording(), &place.join("bodies")) } else { Vec::new() };
        let mut measured = Measured { runtime: Vec::new(), bare: Vec::new(), curl: Vec::new() };
        for _ in 0..case.rounds {
            measured.runtime.push(work.runtime(false));
            measured.bare.push(work.bare());
            if case.with_curl {
                measured.curl.extend(work.curl(&files));
            }
        }
        let _ = std::fs::remove_dir_all(place);
        measured
    }

    /// How many times the CPU time of the bare loop, round by round.
    fn ratios(&self) -> Vec<f64> {
        self.runtime.iter().zip(&self.bare).map(|(runtime, bare)| runtime.cpu / bare.cpu).collect()
    }

    fn line(&self, case: &Case) -> String {
        let of = |samples: &[Sample], field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
        let curl =
            if self.curl.is_empty() { "-".to_owned() } else { format!("{:.3} s", of(&self.curl, |sample| sample.cpu)) };
        format!(
            "{:<28} {:>9.2} {:>8.3} {:>8.3} {:>6.2} | {:>12.3} s {:>6.2} | {:>14} | {:>6.2} {:>9.2}",
            case.name,
            self.runtime.last().map_or(0.0, |sample| sample.bytes as f64 / 1e6),
            of(&self.runtime, |sample| sample.wall),
            of(&self.runtime, |sample| sample.cpu),
            of(&self.runtime, |sample| sample.peak_mib),
            of(&self.bare, |sample| sample.cpu),
            of(&self.bare, |sample| sample.peak_mib),
            curl,
            median(self.ratios()),
            spread(self.ratios()),
        )
    }

    fn to_json(&self, case: &Case) -> Value {
        let all = |samples: &[Sample]| {
            let of = |field: fn(&Sample) -> f64| {
                let values: Vec<f64> = samples.iter().map(field).collect();
                json!({"median": median(values.clone()), "spread": spread(values)})
            };
            json!({
                "wall_s": of(|sample| sample.wall),
                "cpu_s": of(|sample| sample.cpu),
                "peak_mib": of(|sample| sample.peak_mib),
                "first_request_ms": of(|sample| sample.first_request_ms),
                "bytes": samples.last().map(|sample| sample.bytes),
            })
        };
        json!({
            "name": case.name, "turns": case.turns, "rounds": case.rounds, "streamed": case.is_streamed,
            "tls": case.is_secure, "tools": case.tools, "runtime": all(&self.runtime), "bare_loop": all(&self.bare),
            "curl": if self.curl.is_empty() { Value::Null } else { all(&self.curl) },
            "cpu_ratio": {"median": median(self.ratios()), "spread": spread(self.ratios())},
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Half of the distance between the quarter points.
fn spread(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    (at(values.len() * 3 / 4) - at(values.len() / 4)) / 2.0
}

/// What a turn costs the longer the conversation is, beside the bare loop.
fn growth((case, measured): &(Case, Measured)) -> Vec<Value> {
    let near = |samples: &[Sample], turn: usize| {
        let width = turn / 10 + 2;
        let around = |sample: &Sample| {
            sample.turns.iter().skip(turn.saturating_sub(width + 1)).take(2 * width).copied().collect::<Vec<_>>()
        };
        median(samples.iter().flat_map(around).collect())
    };
    let turns = GROWTH_TURNS.into_iter().filter(|turn| case.name == "1000 turns" && *turn <= case.turns);
    turns
        .map(|turn| {
            let (runtime, bare) = (near(&measured.runtime, turn), near(&measured.bare, turn));
            let text = format!("CPU of turn {turn:>4}: {runtime:>8.0} µs, bare loop {bare:>8.0} µs");
            json!({"turn": turn, "runtime_us": runtime, "bare_loop_us": bare, "text": text})
        })
        .collect()
}

fn limits(measured: &[(Case, Measured)]) -> Vec<Value> {
    let of = |name: &str| measured.iter().find(|(case, _)| case.name == name).map(|(_, measured)| measured);
    let limit = |what: &str, value: f64, limit: f64, unit: &str| json!({"what": what, "value": (value * 100.0).round() / 100.0, "limit": limit, "unit": unit, "kept": value <= limit});
    let bytes = std::fs::metadata(executable()).unwrap().len();
    let mut limits = vec![limit("executable", bytes as f64, EXECUTABLE_BYTES_MAX as f64, "bytes")];
    if let Some(one) = of("1 turn") {
        let value = median(one.runtime.iter().map(|sample| sample.first_request_ms).collect());
        limits.push(limit("start to first request on the wire", value, FIRST_REQUEST_MS_MAX, "ms"));
    }
    for name in ["50 turns", "50 turns, TLS"] {
        if let Some(fifty) = of(name) {
            let value = median(fifty.runtime.iter().map(|sample| sample.peak_mib).collect());
            limits.push(limit(&format!("peak memory, {name}"), value, PEAK_MIB_MAX, "MiB"));
        }
    }
    for name in ["200 turns", "200 turns, not streamed", "200 turns, TLS"] {
        if let Some(measured) = of(name) {
            limits.push(limit(
                &format!("CPU of {name}, to the bare loop"),
                median(measured.ratios()),
                CPU_TIMES_FLOOR_MAX,
                "times",
            ));
        }
    }
    limits
}

/// The place of a case, with a workspace.
struct Work<'a> {
    case: &'a Case,
    place: PathBuf,
}

impl Work<'_> {
    fn prepare<'a>(case: &'a Case, place: &Path) -> Work<'a> {
        let work = Work { case, place: place.to_owned() };
        let workspace = place.join("workspace");
        std::fs::create_dir_all(&workspace).unwrap();
        let mut random = Random(0x5eed);
        for turn in 0..case.turns {
            let bytes = if turn == 0 { case.first_result_bytes } else { RESULT_BYTES };
            std::fs::write(workspace.join(format!("r{turn}")), random.text(bytes)).unwrap();
        }
        work
    }

    fn recording(&self) -> PathBuf {
        self.place.join("recording")
    }

    fn authority(&self) -> String {
        if self.case.is_secure { self.place.join("authority.pem").to_str().unwrap().to_owned() } else { String::new() }
    }

    /// A run of the runtime.
    fn runtime(&self, is_recorded: bool) -> Sample {
        self.run(is_recorded, |url| {
            let model = json!({
                "provider": "openai-compatible", "name": "measured", "endpoint": format!("{url}/v1"),
                "api_key": "sk-measured-0123456789", "stream": self.case.is_streamed,
            });
            let mut command = Command::new(executable());
            command
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("THOUGHTMESH_OBJECTIVE", "Read the files.")
                .env("THOUGHTMESH_MODEL_CONFIG", model.to_string())
                .env("THOUGHTMESH_TOOLS", self.tools())
                .env("THOUGHTMESH_LIMITS", json!({"max_turns": 2000}).to_string())
                .env("THOUGHTMESH_WORKSPACE", self.place.join("workspace"));
            if self.case.is_secure {
                command.env("SSL_CERT_FILE", self.authority());
            }
            command
        })
    }

    fn tools(&self) -> String {
        let mut tools = vec![json!({"name": "filesystem", "config": {"output_bytes_max": 20_000_000}})];
        if self.case.tools > 0 {
            let command = json!([std::env::current_exe().unwrap(), "tools", self.case.tools.to_string()]);
            tools.push(json!({"name": "many", "type": "mcp", "config": {"command": command}}));
        }
        json!(tools).to_string()
    }

    fn bare(&self) -> Sample {
        self.run(false, |url| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.arg("post").arg(format!("{url}/v1/chat/completions")).arg(self.recording()).arg(self.authority());
            command
        })
    }

    /// `None`: there is no curl here.
    fn curl(&self, files: &[String]) -> Option<Sample> {
        Command::new("curl").arg("--version").stdout(Stdio::null()).status().ok()?;
        let config = self.place.join("curl");
        Some(self.run(false, |url| {
            floors::write_curl_config(&config, &format!("{url}/v1/chat/completions"), files, &self.authority());
            let mut command = Command::new("curl");
            command.arg("--config").arg(&config);
            command
        }))
    }

    /// A client, made from the server's URL, from its start to its end.
    fn run(&self, is_recorded: bool, client: impl Fn(&str) -> Command) -> Sample {
        let recording = if is_recorded { self.recording().to_str().unwrap().to_owned() } else { String::new() };
        let Case { turns, is_streamed, is_secure, .. } = *self.case;
        let script = Script { turns, is_streamed, is_secure, authority: self.authority(), recording };
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["serve", &script.to_argument()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        let scheme = if is_secure { "https" } else { "http" };
        let mut command = client(&format!("{scheme}://127.0.0.1:{}", line.trim()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (began, started) = (SystemTime::now(), Instant::now());
        let child = command.spawn().unwrap();
        writeln!(server.stdin.take().unwrap(), "{}", child.id()).unwrap();
        let cpu = kernel::wait(child);
        let wall = started.elapsed().as_secs_f64();
        line.clear();
        told.read_line(&mut line).unwrap();
        server.wait().unwrap();
        let notes: Value = serde_json::from_str(&line).unwrap();
        let number = |field: &str| notes[field].as_u64().unwrap();
        let first =
            Duration::from_nanos(number("first_byte_ns")).saturating_sub(began.duration_since(UNIX_EPOCH).unwrap());
        let at: Vec<u64> = notes["cpu_ns"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
        assert_eq!(at.len(), turns + 1, "a request for each turn, and one to finish");
        Sample {
            wall,
            cpu,
            peak_mib: number("peak_kib") as f64 / 1024.0,
            first_request_ms: first.as_secs_f64() * 1e3,
            bytes: number("bytes"),
            turns: at.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e3).collect(),
        }
    }
}

/// Text that looks like a program's, the same in every run.
struct Random(u64);

impl Random {
    fn text(&mut self, bytes: usize) -> String {
        const WORDS: [&str; 12] = [
            "let",
            "value",
            "=",
            "read(\"path\")",
            "match",
            "Some(item)",
            "=>",
            "{",
            "}",
            "// why",
            "self.count",
            "+= 1;",
        ];
        let mut text = String::new();
        while text.len() < bytes {
            // The constants of Knuth's MMIX.
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (self.0 >> 33) as usize;
            text.push_str(WORDS[number % WORDS.len()]);
            text.push(if number % 97 < 12 { '\n' } else { ' ' });
        }
        text.truncate(bytes - 1);
        text + "\n"
    }
}

/// What only the kernel knows of a process that has ended; the page of unsafe code here.
#[allow(unsafe_code)]
mod kernel {
    use std::process::Child;

    /// `struct rusage` of 64-bit Linux, where times are two words each.
    #[repr(C)]
    #[derive(Default)]
    struct Usage {
        times: [i64; 4],
        others: [i64; 14],
    }

    unsafe extern "C" {
        fn wait4(process: i32, status: *mut i32, options: i32, usage: *mut Usage) -> i32;
    }

    /// Waits for the end of a child, which must be a good one, and gives its CPU time in seconds.
    pub fn wait(child: Child) -> f64 {
        let (mut status, mut usage) = (0, Usage::default());
        // SAFETY: both places are valid for writes and large enough, and the child is ours and has not been waited for.
        let ended = unsafe { wait4(child.id() as i32, &raw mut status, 0, &raw mut usage) };
        assert_eq!((ended, status), (child.id() as i32, 0), "the process ended badly");
        let [user_seconds, user_micros, system_seconds, system_micros] = usage.times;
        (user_seconds + system_seconds) as f64 + (user_micros + system_micros) as f64 / 1e6
    }
}
