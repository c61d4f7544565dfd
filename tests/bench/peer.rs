//! The model's side of a measured run, in a process of its own: it takes requests, answers by their number, and keeps notes.
//!
//! The client's numbers are the kernel's: memory and CPU time stand in `/proc` and are read when a request has arrived whole,
//! while the client waits for the answer. What may surprise: nothing of a request is kept, because a run of 1,000 turns sends
//! gigabytes; a recording holds of each only where it differs from the one before.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::tls::{Certificate, Kind};

/// What the server does, as an argument of its process.
#[derive(Clone, Default)]
pub struct Script {
    /// Tool calls, one a turn; the answer after them is `finish`.
    pub turns: usize,
    pub is_streamed: bool,
    pub is_secure: bool,
    /// Where the certificate of its authority is put.
    pub authority: String,
    /// Where the requests are recorded; empty for nowhere.
    pub recording: String,
}

impl Script {
    pub fn to_argument(&self) -> String {
        json!([self.turns, self.is_streamed, self.is_secure, self.authority, self.recording]).to_string()
    }

    fn of_argument(argument: &str) -> Script {
        let fields: Value = serde_json::from_str(argument).unwrap();
        let text = |index: usize| fields[index].as_str().unwrap().to_owned();
        Script {
            turns: fields[0].as_u64().unwrap() as usize,
            is_streamed: fields[1] == true,
            is_secure: fields[2] == true,
            authority: text(3),
            recording: text(4),
        }
    }
}

trait Connection: BufRead {
    fn answer(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

impl<S: Read + Write> Connection for BufReader<S> {
    fn answer(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.get_mut().write_all(bytes)?;
        self.get_mut().flush()
    }
}

/// Plays the script. The first line of stdin is the client's process id; stdout gets the port, and at the end one JSON object.
pub fn serve(argument: &str) {
    let script = Script::of_argument(argument);
    let authority = Certificate::self_signed(Kind::Authority);
    let secure = script.is_secure.then(|| authority.signs(Kind::Server).server_config());
    if script.is_secure {
        std::fs::write(&script.authority, authority.pem()).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let mut notes = Notes::new(&script);
    while notes.cpu.len() <= script.turns {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut first = [0];
        let _ = stream.peek(&mut first);
        notes.first_byte.get_or_insert_with(SystemTime::now);
        let mut connection = connection(stream, &secure);
        // It ends when the client closes it: one that does not know our authority does so in the handshake.
        while notes.cpu.len() <= script.turns && notes.request(&mut *connection).is_ok() {
            let answer = if notes.cpu.len() > script.turns { finish() } else { call(notes.cpu.len() - 1) };
            if connection.answer(&framed(&answer, script.is_streamed)).is_err() {
                break;
            }
        }
    }
    println!("{}", notes.to_json());
}

fn connection(stream: TcpStream, secure: &Option<std::sync::Arc<rustls::ServerConfig>>) -> Box<dyn Connection> {
    match secure {
        Some(config) => {
            let connection = ServerConnection::new(config.clone()).unwrap();
            Box::new(BufReader::with_capacity(1 << 16, StreamOwned::new(connection, stream)))
        }
        None => Box::new(BufReader::with_capacity(1 << 16, stream)),
    }
}

struct Notes {
    client: Option<u32>,
    first_byte: Option<SystemTime>,
    /// CPU time of the client when each request had arrived, in nanoseconds.
    cpu: Vec<u64>,
    bytes: u64,
    peak_kibibytes: u64,
    body: Vec<u8>,
    before: Vec<u8>,
    recording: Option<BufWriter<File>>,
}

impl Notes {
    fn new(script: &Script) -> Notes {
        let recording = Some(&script.recording).filter(|path| !path.is_empty());
        Notes {
            client: None,
            first_byte: None,
            cpu: Vec::new(),
            bytes: 0,
            peak_kibibytes: 0,
            body: Vec::new(),
            before: Vec::new(),
            recording: recording.map(|path| BufWriter::new(File::create(path).unwrap())),
        }
    }

    /// Takes one request to its end.
    fn request(&mut self, connection: &mut dyn Connection) -> std::io::Result<()> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = number.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        self.body.resize(length, 0);
        connection.read_exact(&mut self.body)?;
        self.bytes += length as u64;
        let client = *self.client.get_or_insert_with(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            line.trim().parse().unwrap()
        });
        self.cpu.push(cpu_nanoseconds(client));
        self.peak_kibibytes = peak_kibibytes(client);
        if let Some(recording) = &mut self.recording {
            let kept = self.body.iter().zip(&self.before).take_while(|(now, before)| now == before).count();
            recording.write_all(&(kept as u64).to_le_bytes())?;
            recording.write_all(&((length - kept) as u64).to_le_bytes())?;
            recording.write_all(&self.body[kept..])?;
            std::mem::swap(&mut self.body, &mut self.before);
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let since = self.first_byte.unwrap().duration_since(UNIX_EPOCH).unwrap();
        json!({
            "first_byte_ns": since.as_nanos() as u64,
            "bytes": self.bytes,
            "cpu_ns": self.cpu,
            "peak_kib": self.peak_kibibytes,
        })
    }
}

/// What the scheduler has given the process so far; 0 where the kernel does not count it.
fn cpu_nanoseconds(process: u32) -> u64 {
    let counted = std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    counted.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn peak_kibibytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The tool call of a turn, counted from 0: name and arguments.
fn call(turn: usize) -> (String, &'static str, Value) {
    (format!("call_{turn}"), "read_file", json!({"path": format!("r{turn}"), "limit": 1_000_000}))
}

fn finish() -> (String, &'static str, Value) {
    ("call_last".to_owned(), "finish", json!({"status": "achieved", "summary": "Measured.", "key_results": []}))
}

/// A whole HTTP answer in OpenAI's format.
fn framed((id, name, arguments): &(String, &str, Value), is_streamed: bool) -> Vec<u8> {
    let arguments = arguments.to_string();
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 30, "total_tokens": 1030});
    if !is_streamed {
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        let choices = json!([{"index": 0, "finish_reason": "tool_calls", "message": message}]);
        let body = json!({"id": "1", "object": "chat.completion", "choices": choices, "usage": usage}).to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        return (head + &body).into_bytes();
    }
    let chunk = |delta: Value, reason: Value| json!({"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
    let fragment = |fields: Value| chunk(json!({"tool_calls": [fields]}), Value::Null);
    let mut events = vec![
        chunk(json!({"role": "assistant", "content": null}), Value::Null),
        fragment(json!({"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": ""}})),
    ];
    // A token is some four characters, and models stream tokens.
    let letters: Vec<char> = arguments.chars().collect();
    events.extend(
        letters
            .chunks(4)
            .map(|piece| fragment(json!({"index": 0, "function": {"arguments": piece.iter().collect::<String>()}}))),
    );
    events.push(chunk(json!({}), json!("tool_calls")));
    events.push(json!({"id": "1", "object": "chat.completion.chunk", "choices": [], "usage": usage}));
    let events = events.iter().map(Value::to_string).chain(["[DONE]".to_owned()]);
    let mut answer =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for event in events {
        let event = format!("data: {event}\n\n");
        answer.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
    }
    (answer + "0\r\n\r\n").into_bytes()
}

/// An MCP server over stdin and stdout with so many tools, which nobody calls.
pub fn offer_tools(count: usize) {
    let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    let tool = |number| json!({"name": format!("t{number}"), "description": "Looks.", "inputSchema": schema});
    for line in std::io::stdin().lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let result = match message["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "many", "version": "1"},
            }),
            Some("tools/list") => json!({"tools": (0..count).map(tool).collect::<Vec<_>>()}),
            _ => continue,
        };
        println!("{}", json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
    }
}
