//! How the MCP servers of the tests are reached: as a child process, over streamable HTTP, over the older HTTP+SSE.
//!
//! The child is `tests/programs/relay.rs`, which carries its stdin and stdout to the test; so all servers work in here, and
//! what they saw is at hand. It knows nothing of what the messages mean, besides who answers whom.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;

use crate::mcp_server::{Act, Seen, Shared, Transport, flaws};
use crate::server::{Exchange, Request, read_line, read_request};

/// The code that a child ends with when it hangs up.
const EXIT_CODE: u8 = 3;

/// The program that stands for a child, compiled on first use.
pub fn relay() -> String {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/relay.rs");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("relay");
        let age = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        if age(&program) < age(&source) {
            // Other test processes may be doing the same.
            let fresh = program.with_extension(std::process::id().to_string());
            let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
            let options = ["--edition", "2024", "-C", "strip=symbols", "-o"];
            let compiled = Command::new(rustc).args(options).arg(&fresh).arg(&source).status().expect("rustc");
            assert!(compiled.success(), "the relay does not compile");
            std::fs::rename(&fresh, &program).unwrap();
        }
        program.to_str().expect("a path of UTF-8").to_owned()
    });
    program.clone()
}

/// Where a server speaks.
#[derive(Clone)]
pub struct Voice {
    stream: Arc<Mutex<TcpStream>>,
    is_child: bool,
}

impl Voice {
    fn new(stream: &TcpStream, is_child: bool) -> Voice {
        Voice { stream: Arc::new(Mutex::new(stream.try_clone().unwrap())), is_child }
    }

    pub fn message(&self, message: &Value) -> std::io::Result<()> {
        match self.is_child {
            true => self.raw(format!("{message}\n").as_bytes()),
            false => self.raw(format!("event: message\ndata: {message}\n\n").as_bytes()),
        }
    }

    pub fn raw(&self, bytes: &[u8]) -> std::io::Result<()> {
        match self.is_child {
            true => self.frame(b'o', bytes),
            false => self.write(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()),
        }
    }

    pub fn stderr(&self, text: &str) -> std::io::Result<()> {
        self.frame(b'e', text.as_bytes())
    }

    /// The child ends, or the connection does without having said so.
    pub fn hang_up(&self) {
        let _ = match self.is_child {
            true => self.frame(EXIT_CODE, b""),
            false => self.stream.lock().unwrap().shutdown(Shutdown::Both),
        };
    }

    fn frame(&self, place: u8, bytes: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(bytes.len()).expect("less than 4 GiB").to_be_bytes();
        self.write(&[&[place], &length[..], bytes].concat())
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.lock().unwrap().write_all(bytes)
    }
}

pub fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in listener.incoming().enumerate() {
        let mut state = shared.state();
        if state.is_over {
            return;
        }
        let stream = stream.unwrap();
        let _ = stream.set_nodelay(true);
        state.streams.push(stream.try_clone().unwrap());
        let shared = shared.clone();
        std::thread::spawn(move || match shared.manner.transport {
            Transport::Stdio => serve_child(&shared, stream, number),
            Transport::Http | Transport::EventStream => serve_http(&shared, stream, number),
        });
    }
}

// A child.

fn serve_child(shared: &Arc<Shared>, stream: TcpStream, number: usize) {
    let voice = Voice::new(&stream, true);
    let mut connection = BufReader::new(stream);
    let mut hello = String::new();
    while let Some(line) = read_line(&mut connection).filter(|line| !line.is_empty()) {
        hello += &format!("{line}\n");
    }
    shared.state().hellos.push(hello);
    // Before anything is read, as far as that can be: a server that dies at its start answers nothing.
    let greeting = &shared.manner.greeting;
    let first_wait = greeting.iter().position(|act| matches!(act, Act::Await(_))).unwrap_or(greeting.len());
    let (now, later) = greeting.split_at(first_wait);
    let _ = shared.play(now, &voice);
    play_apart(shared, later.to_vec(), &voice);
    while let Some(line) = read_line(&mut connection) {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        flaws(&message).into_iter().for_each(|flaw| shared.problem(format!("{flaw}: {line}")));
        shared.record(Seen { message: message.clone(), http: None, connection: number });
        if message["method"].is_string() && (message["id"] != Value::Null || shared.handles(&method_of(&message))) {
            play_apart(shared, shared.acts(&message), &voice);
        } else if message["method"].is_string() {
            shared.acts(&message);
        }
    }
    shared.state().inputs_closed += 1;
    shared.changed();
    if !shared.manner.ignores_end_of_input {
        let _ = connection.get_ref().shutdown(Shutdown::Both);
    }
}

/// In a thread of its own: what it waits for comes through the one that reads.
fn play_apart(shared: &Arc<Shared>, acts: Vec<Act>, voice: &Voice) {
    let (shared, voice) = (shared.clone(), voice.clone());
    std::thread::spawn(move || shared.play(&acts, &voice));
}

fn method_of(message: &Value) -> String {
    message["method"].as_str().unwrap_or_default().to_owned()
}

// HTTP.

fn serve_http(shared: &Arc<Shared>, stream: TcpStream, number: usize) {
    let mut connection = BufReader::new(stream);
    while let Some(request) = read_request(&mut connection, number) {
        shared.record(Seen { message: request.json(), http: Some(request.clone()), connection: number });
        let is_open = match shared.manner.transport {
            _ if shared.unauthorized(&request).is_some() => {
                shared.unauthorized(&request).unwrap().play(&mut connection)
            }
            Transport::EventStream => serve_old(shared, &request, &mut connection),
            _ => serve_streamable(shared, &request, &mut connection),
        };
        if !is_open.unwrap_or(false) {
            break;
        }
    }
    // The clone that the server keeps would hold the connection open.
    let _ = connection.get_ref().shutdown(Shutdown::Both);
}

/// Streamable HTTP; says whether the connection can carry another request.
fn serve_streamable(
    shared: &Arc<Shared>,
    request: &Request,
    connection: &mut BufReader<TcpStream>,
) -> std::io::Result<bool> {
    let message = request.json();
    let method = if request.method == "POST" { method_of(&message) } else { request.method.clone() };
    if let Some(refusal) = shared.refusal(request) {
        return refusal.play(connection);
    }
    let is_request = method != "DELETE" && !message["id"].is_null() && message["method"].is_string();
    if !is_request && !shared.handles(&method) {
        if message["method"].is_string() {
            shared.acts(&message);
        }
        let status = if request.method == "POST" { 202 } else { 405 };
        return Exchange::new(status, "text/plain", "").play(connection);
    }
    let question = if message.is_null() { serde_json::json!({"method": method}) } else { message };
    let session = (method == "initialize").then(|| shared.new_session()).flatten();
    let with_session = |exchange: Exchange| match &session {
        Some(session) => exchange.header("Mcp-Session-Id", session),
        None => exchange,
    };
    let acts = shared.acts(&question);
    match &acts[..] {
        [Act::Http(exchange)] => with_session(exchange.clone()).play(connection),
        [Act::Send(answer)] if shared.has_statuses(&question) && status_of(answer) != 200 => {
            Exchange::json(status_of(answer), answer).play(connection)
        }
        [Act::Send(answer)] if shared.manner.answers_json => with_session(Exchange::json(200, answer)).play(connection),
        _ => {
            let session = session.map(|session| format!("Mcp-Session-Id: {session}\r\n")).unwrap_or_default();
            stream_events(connection, &session)?;
            let voice = Voice::new(connection.get_ref(), false);
            shared.play(&acts, &voice)?;
            finish(connection, &acts)
        }
    }
}

/// The newest revision gives some errors a status of their own.
fn status_of(answer: &Value) -> u16 {
    match answer["error"]["code"].as_i64() {
        Some(-32601) => 404,
        Some(-32602 | -32022 | -32020) => 400,
        _ => 200,
    }
}

fn stream_events(connection: &mut BufReader<TcpStream>, headers: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
    );
    connection.get_mut().write_all(head.as_bytes())
}

/// Ends the stream in the way of its last act.
fn finish(connection: &mut BufReader<TcpStream>, acts: &[Act]) -> std::io::Result<bool> {
    match acts.last() {
        Some(Act::HangUp) => return Ok(false),
        Some(Act::Silence) => {
            connection.read_to_end(&mut Vec::new())?;
            return Ok(false);
        }
        _ => connection.get_mut().write_all(b"0\r\n\r\n")?,
    }
    Ok(true)
}

/// The older HTTP+SSE: one stream for all that the server says, and a place to post to.
fn serve_old(shared: &Arc<Shared>, request: &Request, connection: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
    let address = connection.get_ref().local_addr()?;
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/sse") => {
            stream_events(connection, "")?;
            let voice = Voice::new(connection.get_ref(), false);
            let endpoint = shared.manner.endpoint.replace("{url}", &format!("http://{address}"));
            voice.raw(format!(": welcome\n\nevent: endpoint\ndata: {endpoint}\n\n").as_bytes())?;
            shared.state().events = Some(voice);
            connection.read_to_end(&mut Vec::new())?;
            Ok(false)
        }
        // The session ends with its stream.
        ("POST", path) if path.starts_with("/messages") && shared.state().events.is_none() => {
            Exchange::new(404, "text/plain", "Could not find session").play(connection)
        }
        ("POST", path) if path.starts_with("/messages") => {
            let message = request.json();
            flaws(&message).into_iter().for_each(|flaw| shared.problem(format!("{flaw}: {}", request.text())));
            let voice = shared.state().events.clone();
            let is_request = message["method"].is_string() && !message["id"].is_null();
            let acts = if message["method"].is_string() { shared.acts(&message) } else { Vec::new() };
            if let [Act::Http(exchange)] = &acts[..] {
                return exchange.play(connection);
            }
            if let Some(voice) = voice.filter(|_| is_request) {
                play_apart(shared, acts, &voice);
            }
            Exchange::new(202, "text/plain", "Accepted").play(connection)
        }
        _ => match &shared.acts(&serde_json::json!({"method": request.method}))[..] {
            [Act::Http(refusal)] => refusal.play(connection),
            _ => Exchange::new(405, "text/plain", "Method Not Allowed").play(connection),
        },
    }
}
