//! Dying at any moment: the run is killed at each of its writes, flushes and starts of processes, cut at each byte, damaged at
//! each byte, and killed at random times; the next process must come to the same end.
//!
//! `just test` tries a sample, `just torture` (which sets `TORTURE`) all. Each test prints how many points it tried and how
//! many effects were lost or done twice. What may surprise: the model here is a function of the conversation, so that it
//! does not matter which process asks, and the workspace holds one line for each effect, so that they can be counted.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Runtime};
use crate::server::{Exchange, Request, ScriptedServer};
use crate::trace::{Call, Traced};

/// A plan for the model: each turn's tool calls. The turn behind the last one is a claim that is rejected, then one that is not.
struct Plan {
    turns: Vec<Vec<(String, &'static str, Value)>>,
    effects: usize,
    /// The turn whose first question is answered with a failure that passes.
    fails_once_at: usize,
}

impl Plan {
    /// 20 turns, 30 tool calls of which 10 have effects that count and 8 write files.
    fn long() -> Plan {
        let mut turns = Vec::new();
        for turn in 0..18 {
            let mut calls = match turn {
                0..10 => vec![effect(turn), (format!("r{turn}"), "read_file", json!({"path": "notes.txt"}))],
                _ => vec![(
                    format!("w{turn}"),
                    "write_file",
                    json!({"path": format!("out/{turn}.txt"), "content": format!("text {turn}")}),
                )],
            };
            if turn == 10 || turn == 11 {
                calls.push((format!("l{turn}"), "list_directory", json!({})));
            }
            turns.push(calls);
        }
        Plan { turns, effects: 10, fails_once_at: 7 }
    }

    /// Few enough bytes that each can be tried.
    fn short() -> Plan {
        let read = ("r".to_owned(), "read_file", json!({"path": "notes.txt"}));
        Plan { turns: vec![vec![effect(0), read], vec![effect(1), effect(2)]], effects: 3, fails_once_at: 1 }
    }

    fn turns_total(&self) -> usize {
        self.turns.len() + 2
    }

    fn calls_total(&self) -> usize {
        self.turns.iter().map(Vec::len).sum()
    }

    fn answer(&self, turn: usize) -> Exchange {
        match self.turns.get(turn) {
            Some(calls) => {
                let calls: Vec<(&str, &str, Value)> =
                    calls.iter().map(|(id, name, arguments)| (id.as_str(), *name, arguments.clone())).collect();
                chat::tool_calls(&calls)
            }
            None if turn == self.turns.len() => {
                let claim = json!({"status": "achieved", "summary": "s", "key_results": []}).to_string();
                chat::tool_calls(&[("rejected", "finish", serde_json::from_str(&claim).unwrap())])
            }
            None => chat::tool_calls(&[("last", "finish", chat::achieved_arguments(1))]),
        }
    }
}

fn effect(number: usize) -> (String, &'static str, Value) {
    (format!("e{number}"), "shell", json!({"command": format!("echo {number} >> effects")}))
}

/// A run of a plan, with its server.
struct Scene {
    plan: Arc<Plan>,
    server: ScriptedServer,
    /// The bodies of the questions for each turn that were answered.
    asked: Arc<Mutex<BTreeMap<usize, Vec<Vec<u8>>>>>,
}

impl Scene {
    fn new(plan: &Arc<Plan>) -> Scene {
        let asked: Arc<Mutex<BTreeMap<usize, Vec<Vec<u8>>>>> = Arc::default();
        let has_failed = AtomicUsize::new(0);
        let server = ScriptedServer::answers({
            let (plan, asked) = (plan.clone(), asked.clone());
            move |request: &Request| {
                let turn = request.messages().iter().filter(|message| message["role"] == "assistant").count();
                if turn == plan.fails_once_at && has_failed.fetch_add(1, Ordering::SeqCst) == 0 {
                    return chat::unavailable(503);
                }
                asked.lock().unwrap().entry(turn).or_default().push(request.body.clone());
                plan.answer(turn)
            }
        });
        Scene { plan: plan.clone(), server, asked }
    }

    fn runtime(&self) -> Runtime {
        Runtime::new()
            .journal()
            .env("RUST_LOG", "off")
            .key_results(json!(["A"]))
            .tools_named(&["shell", "filesystem"])
            .file("notes.txt", "a note\n")
            .model(&self.server)
    }

    /// Holds the end of a run that was killed `kills` times to what must be so.
    #[track_caller]
    fn check(&self, ended: &Ended, kills: usize, place: &str) -> Effects {
        let plan = &self.plan;
        ended.exits(0).reason("finished");
        ended.counts("turns", plan.turns_total() as u64).counts("toolCalls", plan.calls_total() as u64);
        let outcome = ended.outcome();
        let tokens = plan.turns_total() as u64 * chat::INPUT_TOKENS;
        ended.check(outcome["usage"]["inputTokens"] == tokens, &format!("{place}: the usage"));
        let calls = outcome["llmCallsUsed"].as_u64().unwrap_or(0) as usize;
        let in_range = (plan.turns_total()..=plan.turns_total() + kills).contains(&calls);
        ended.check(in_range, &format!("{place}: {calls} model calls"));
        let asked = self.asked.lock().unwrap();
        ended.check(asked.len() == plan.turns_total(), &format!("{place}: {} turns were asked for", asked.len()));
        let answers: usize = asked.values().map(Vec::len).sum();
        ended.check(answers <= calls, &format!("{place}: {answers} answers for {calls} model calls"));
        for (turn, bodies) in asked.iter() {
            let is_same = bodies.iter().all(|body| *body == bodies[0]);
            ended.check(is_same, &format!("{place}: turn {turn} was asked for with different words"));
        }
        self.count_effects(ended, place, kills)
    }

    #[track_caller]
    fn count_effects(&self, ended: &Ended, place: &str, kills: usize) -> Effects {
        let done = ended.file("effects").unwrap_or_default();
        let messages = self.server.script().requests().last().map(Request::messages).unwrap_or_default();
        let mut effects = Effects::default();
        for number in 0..self.plan.effects {
            let count = done.lines().filter(|line| *line == number.to_string()).count();
            let result = messages.iter().find(|message| message["tool_call_id"] == format!("e{number}"));
            let was_told = result.is_some_and(|result| result["content"].to_string().contains("outcome unknown"));
            effects.unknown += usize::from(was_told);
            effects.lost += usize::from(count == 0 && !was_told);
            effects.doubled += count.saturating_sub(1);
        }
        ended.check(effects.lost == 0 && effects.doubled == 0, &format!("{place}: {effects:?}"));
        ended.check(effects.unknown <= kills, &format!("{place}: {effects:?}"));
        effects
    }
}

#[derive(Debug, Default)]
struct Effects {
    lost: usize,
    doubled: usize,
    /// The model was told that the outcome is unknown.
    unknown: usize,
}

/// What was tried, over all threads.
#[derive(Default)]
struct Tally {
    points: AtomicUsize,
    lost: AtomicUsize,
    doubled: AtomicUsize,
    unknown: AtomicUsize,
}

impl Tally {
    fn add(&self, effects: &Effects) {
        self.points.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(effects.lost, Ordering::Relaxed);
        self.doubled.fetch_add(effects.doubled, Ordering::Relaxed);
        self.unknown.fetch_add(effects.unknown, Ordering::Relaxed);
    }

    fn print(&self, what: &str) {
        let get = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        let (lost, doubled, unknown) = (get(&self.lost), get(&self.doubled), get(&self.unknown));
        say(&format!(
            "{what}: {} points tried, {lost} effects lost, {doubled} done twice, {unknown} told as unknown",
            get(&self.points)
        ));
    }
}

/// Past the test harness, which keeps to itself what a passing test prints.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "torture: {text}");
}

fn is_torture() -> bool {
    std::env::var_os("TORTURE").is_some()
}

/// All of the numbers below `end`, or every so many of them that about `count` remain.
fn sample(end: usize, count: usize) -> Vec<usize> {
    let step = if is_torture() { 1 } else { (end / count).max(1) };
    (0..end).step_by(step).collect()
}

/// Does it for each number, two at a time.
fn in_parallel(numbers: &[usize], work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(*number);
                }
            });
        }
    });
}

// Killed at each system call that writes, flushes, or starts a process.

/// What a traced run did until it ended or was killed.
#[derive(Default)]
struct Seen {
    points: usize,
    flushes: usize,
    /// Starts of commands and questions to the model that were made before what announces them was flushed.
    unannounced: Vec<String>,
    /// Bytes that were about to be written to the journal.
    unwritten: Option<Vec<u8>>,
    has_ended: bool,
}

/// Whether a call is worth dying at. Of the questions whether a child has ended, the first of each child is: it runs then.
fn is_point(call: &Call, has_new_child: &mut bool) -> bool {
    if call.name == "waitid" {
        return std::mem::take(has_new_child);
    }
    *has_new_child |= ["clone", "clone3", "fork", "vfork"].contains(&call.name);
    true
}

/// Runs it and kills it before its point number `at`. `None` where this machine allows no tracing.
fn trace(runtime: &mut Runtime, at: usize) -> Option<Seen> {
    let mut traced = Traced::start(runtime.bare_command())?;
    let mut seen = Seen::default();
    let (mut is_flushed, mut has_new_child) = (true, false);
    while let Ok(call) = traced.next_call() {
        let target = traced.target(call.arguments[0]);
        let is_journal = target.ends_with("/journal");
        let is_point = is_point(&call, &mut has_new_child);
        if is_point && seen.points == at {
            let is_write = is_journal && call.name == "write";
            seen.unwritten = is_write.then(|| traced.memory(call.arguments[1], call.arguments[2]));
            traced.kill();
            return Some(seen);
        }
        seen.points += usize::from(is_point);
        match call.name {
            "write" if is_journal => is_flushed = false,
            "fdatasync" | "fsync" if is_journal => {
                is_flushed = true;
                seen.flushes += 1;
            }
            "clone" | "clone3" | "fork" | "vfork" if !is_flushed => seen.unannounced.push(call.name.to_owned()),
            "sendto" | "write" if target.starts_with("socket:") && !is_flushed => {
                seen.unannounced.push(format!("{} {target}", call.name));
            }
            _ => {}
        }
    }
    seen.has_ended = true;
    Some(seen)
}

#[test]
fn a_run_killed_at_any_write_flush_or_start_comes_to_the_same_end() {
    let plan = Arc::new(Plan::long());
    let Some(all) = trace(&mut Scene::new(&plan).runtime(), usize::MAX) else {
        say("killed at each write: not tried, this machine allows no tracing");
        return;
    };
    assert!(all.has_ended && all.points > 200, "{} points", all.points);
    let tally = Tally::default();
    in_parallel(&sample(all.points, 45), |at| {
        // Killed at a write of the journal, the line is not there at all, in part, or as a whole.
        let shares: &[f64] = if is_torture() { &[0.0, 0.01, 0.5, 0.99, 1.0] } else { &[[0.0, 0.5, 1.0][at % 3]] };
        for share in shares {
            let scene = Scene::new(&plan);
            let mut runtime = scene.runtime();
            let seen = trace(&mut runtime, at).unwrap();
            let Some(line) = seen.unwritten else {
                tally.add(&scene.check(&runtime.run(), 1, &format!("killed at point {at}")));
                return;
            };
            let part = (line.len() as f64 * share).ceil() as usize;
            let journal = std::fs::OpenOptions::new().append(true).open(runtime.path_outside("journal"));
            journal.unwrap().write_all(&line[..part]).unwrap();
            let place = format!("killed at point {at} with {part} of {} bytes written", line.len());
            tally.add(&scene.check(&runtime.run(), 1, &place));
        }
    });
    tally.print(&format!("killed at each write, flush and start ({} in a run)", all.points));
}

#[test]
fn nothing_is_done_before_its_announcement_is_flushed() {
    let plan = Arc::new(Plan::long());
    let Some(seen) = trace(&mut Scene::new(&plan).runtime(), usize::MAX) else { return };
    assert!(seen.unannounced.is_empty(), "{:?}", seen.unannounced);
    // The start, each question, each call that changes something, and the outcome.
    assert_eq!(seen.flushes, 1 + plan.turns_total() + 18 + 1);
}

// Cut or damaged at each byte.

/// A finished run's journal, and its outcome.
fn finished(scene: &Scene) -> (Runtime, Vec<u8>) {
    let ended = scene.runtime().run();
    scene.check(&ended, 0, "not killed");
    let journal = ended.journal();
    (ended.again(), journal)
}

/// The effects that were begun when the journal held no more than this.
fn begun(journal: &[u8]) -> String {
    let lines = journal.split_inclusive(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let starts = lines.filter(|record: &Value| record["record"] == "tool_call_start");
    let numbers = starts.filter_map(|record| Some(record["call_id"].as_str()?.strip_prefix('e')?.to_owned() + "\n"));
    numbers.collect()
}

#[test]
fn a_run_whose_journal_ends_at_any_byte_comes_to_the_same_end() {
    let plan = Arc::new(Plan::short());
    let scene = Scene::new(&plan);
    let (_, journal) = finished(&scene);
    let tally = Tally::default();
    // One server for all: the journal names it. It forgets what was asked before, so one at a time.
    for end in sample(journal.len(), 40) {
        scene.server.script().forget_requests();
        let effects = begun(&journal[..end]);
        let runtime = scene.runtime().file_outside("journal", &journal[..end]).file("effects", &effects);
        let ended = runtime.run();
        ended.exits(0).reason("finished").counts("turns", plan.turns_total() as u64);
        ended.counts("toolCalls", plan.calls_total() as u64);
        tally.add(&scene.count_effects(&ended, &format!("cut at byte {end}"), 1));
    }
    tally.print(&format!("cut at each of {} bytes", journal.len()));
}

#[test]
fn a_journal_with_a_changed_byte_is_refused_with_the_number_of_the_record() {
    let scene = Scene::new(&Arc::new(Plan::short()));
    let (runtime, journal) = finished(&scene);
    drop(runtime);
    let places = sample(journal.len(), 60);
    in_parallel(&places, |place| {
        let mut changed = journal.clone();
        changed[place] ^= 1 << (place % 7);
        let number = journal[..place].iter().filter(|byte| **byte == b'\n').count() + 1;
        let ended = scene.runtime().env("RUST_LOG", "error").file_outside("journal", &changed).run();
        ended.exits(1).reason("config_invalid").tells(&format!("record {number}: "));
        ended.check(ended.journal() == changed, &format!("the file with byte {place} changed was written to"));
    });
    say(&format!("changed at each of {} bytes: {} points tried, all refused", journal.len(), places.len()));
}

// Killed at any time.

/// A small random generator (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

#[test]
fn a_run_killed_at_random_times_comes_to_the_same_end() {
    let seed = std::env::var("TESTING_SEED").ok().and_then(|seed| seed.parse().ok());
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed: u64 = seed.unwrap_or(since.as_millis() as u64);
    let plan = Arc::new(Plan::long());
    let started = Instant::now();
    finished(&Scene::new(&plan));
    let length = started.elapsed();
    let (tally, kills_total) = (Tally::default(), AtomicUsize::new(0));
    let rounds: Vec<usize> = (0..if is_torture() { 100 } else { 12 }).collect();
    in_parallel(&rounds, |round| {
        let mut random = Random(seed.wrapping_add(round as u64));
        let scene = Scene::new(&plan);
        let mut runtime = scene.runtime();
        let mut kills = 0;
        for _ in 0..=random.below(4) {
            let wait = Duration::from_micros(random.below(length.as_micros() as u64));
            let mut child = runtime.bare_command().spawn().unwrap();
            std::thread::sleep(wait);
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        kills_total.fetch_add(kills, Ordering::Relaxed);
        let place = format!("TESTING_SEED={} (round {round} of seed {seed})", seed.wrapping_add(round as u64));
        tally.add(&scene.check(&runtime.run(), kills, &place));
    });
    tally.print(&format!("killed {} times at random (seed {seed})", kills_total.load(Ordering::Relaxed)));
}

// Out of memory.

#[test]
fn a_run_that_died_for_want_of_memory_goes_on() {
    let scene = Scene::new(&Arc::new(Plan::short()));
    let tries = AtomicUsize::new(0);
    let plan = scene.plan.clone();
    // The answer has a text that the process can read and not copy as often as it must, once, in the middle of the run.
    let server = ScriptedServer::answers(move |request: &Request| {
        let turn = request.messages().iter().filter(|message| message["role"] == "assistant").count();
        if turn == 1 && tries.fetch_add(1, Ordering::SeqCst) == 0 {
            return chat::text(&"a long answer ".repeat(1_000_000));
        }
        plan.answer(turn)
    });
    let runtime = scene.runtime().model(&server).after("ulimit -v 50000");
    let first = runtime.run();
    first.check(first.status.signal() == Some(6), "it did not die");
    let ended = first.again().after(":").run();
    ended.exits(0).reason("finished").file_is("effects", "0\n1\n2\n").counts("turns", 4);
    ended.check(ended.outcome()["resumed"] == true, "not resumed");
    say("out of memory: 1 point tried, 0 effects lost, 0 done twice");
}

// What it costs.

#[test]
fn a_journal_costs_its_flushes() {
    let plan = Arc::new(Plan::long());
    let median = |has_journal: bool| {
        let mut times: Vec<Duration> = (0..if is_torture() { 11 } else { 3 })
            .map(|_| {
                let scene = Scene::new(&plan);
                let runtime = scene.runtime();
                let runtime = if has_journal { runtime } else { runtime.unset("THOUGHTMESH_JOURNAL") };
                let ended = runtime.run();
                ended.exits(0);
                ended.duration
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let (with, without) = (median(true), median(false));
    let each = with.saturating_sub(without) / (plan.turns_total() as u32 + 20);
    say(&format!("a run of 20 turns takes {with:?} with a journal and {without:?} without: {each:?} for each flush"));
}

/// Which calls a plan asks for, by id.
fn ids(plan: &Plan) -> HashMap<&str, &str> {
    plan.turns.iter().flatten().map(|(id, name, _)| (id.as_str(), *name)).collect()
}

#[test]
fn the_plan_is_the_one_that_was_promised() {
    let plan = Plan::long();
    assert_eq!((plan.turns_total(), plan.calls_total(), ids(&plan).len()), (20, 30, 30));
    assert_eq!(ids(&plan).values().filter(|name| **name == "shell").count(), 10);
}
