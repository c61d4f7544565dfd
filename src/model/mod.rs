//! One question to a language model, made dependable: encode, post, decode, and again when that may help.
//!
//! What may pass is tried again within `retry`'s bounds; what a person must repair is a [`ModelError`] and ends the run.
//! It knows no tools and no agent. Surprising: a refused prompt is a turn, not an error, because the model may find another way.

mod endpoint;
mod replay;
mod retry;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use log::{debug, info, warn};

use self::endpoint::Endpoint;
use self::replay::Replay;
use crate::config::{ModelConfig, Network, Provider};
use crate::conversation::{Conversation, Part, StopReason, ToolSpec, Turn, Usage};
use crate::host::http::{Client, HttpError, HttpFault, Request, Response, Roots};
use crate::wire::{ApiFault, DecodeError, FaultKind, MESSAGE_CHARS_MAX, Options, Parser, Progress, excerpt};

/// Bytes of an answer that are read: far above the longest text a model writes.
const ANSWER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of a streamed answer that are read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Bytes of an error page that are read.
const ERROR_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of English text and JSON for a token, for providers that do not count (OpenAI's help page "What are tokens", read
/// 2026-11).
const BYTES_PER_TOKEN: u64 = 4;

/// A model that can be asked.
pub struct Model {
    config: ModelConfig,
    source: Source,
}

enum Source {
    Provider(Box<Connection>),
    Replay(Replay),
}

struct Connection {
    client: Client,
    proxy: Option<String>,
    endpoint: Endpoint,
    options: Options,
    /// Parameters that the provider refused in this run.
    refused: Vec<String>,
    /// An exchange went well, so that the next one may meet a connection that the server has closed meanwhile.
    was_used: bool,
}

/// Why the model cannot be asked. Its reader is a person.
#[derive(Debug)]
pub struct ModelError {
    pub kind: ModelErrorKind,
    /// What to look at and what the provider said.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ModelErrorKind {
    /// The configuration cannot be used.
    Config,
    /// The key is missing, refused, or has nothing left to spend.
    Credentials,
    /// The model cannot be reached, is unknown, or does not take the request.
    Unavailable,
    /// The conversation does not fit the model.
    ContextTooLong,
}

impl fmt::Display for ModelError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for ModelError {}

/// Why one try failed.
enum Fault {
    Http(HttpError),
    Api { fault: ApiFault, status: u16, server_wait: Option<Duration> },
    Unreadable(DecodeError),
    Redirect { status: u16, location: String },
}

impl Model {
    pub fn new(config: &ModelConfig, network: &Network, roots: &Roots) -> Result<Model, ModelError> {
        let source = match config.provider {
            Provider::Replay => Source::Replay(Replay::open(&config.name).map_err(|what| ModelError {
                kind: ModelErrorKind::Config,
                message: format!(
                    "THOUGHTMESH_MODEL_CONFIG: name: {what}, accepted with provider replay: the path of a journal file"
                ),
            })?),
            Provider::OpenAi | Provider::OpenAiCompatible => Source::Provider(Box::new(Connection {
                client: Client::new(roots),
                proxy: network.proxy_for(&config.endpoint).map(str::to_owned),
                endpoint: endpoint::endpoint(config),
                options: endpoint::options(config),
                refused: Vec::new(),
                was_used: false,
            })),
        };
        Ok(Model { config: config.clone(), source })
    }

    /// The model's answer to the conversation so far. Waits, and asks again, as long as that may help.
    pub fn ask(&mut self, conversation: &Conversation, tools: &[ToolSpec]) -> Result<Turn, ModelError> {
        match &mut self.source {
            Source::Replay(replay) => replay.next_turn(conversation).ok_or_else(|| ModelError {
                kind: ModelErrorKind::Unavailable,
                message: format!("replay: the file holds {} turns, and the run needs more", replay.turns_total()),
            }),
            Source::Provider(connection) => connection.ask(&self.config, conversation, tools),
        }
    }

    /// What would be asked, without secrets, on one line.
    pub fn describe(&self) -> String {
        match &self.source {
            Source::Replay(replay) => format!("replay of {} turns from {}", replay.turns_total(), self.config.name),
            Source::Provider(connection) => {
                format!("{} {} at {}", self.config.provider.name(), self.config.name, connection.endpoint.url)
            }
        }
    }
}

impl Connection {
    fn ask(
        &mut self,
        config: &ModelConfig,
        conversation: &Conversation,
        tools: &[ToolSpec],
    ) -> Result<Turn, ModelError> {
        let mut body = self.endpoint.format.encode(conversation, tools, &self.options);
        let mut tries = 0;
        loop {
            let fault = match self.post(config, &body) {
                Ok(turn) => {
                    self.was_used = true;
                    return Ok(with_estimate(turn, body.len()));
                }
                Err(fault) => fault,
            };
            if std::mem::take(&mut self.was_used) && is_stale_connection(&fault) {
                debug!("model: the kept connection was closed by the server, asking on a new one");
                continue;
            }
            if let Fault::Api { fault, .. } = &fault {
                if fault.kind == FaultKind::Refused {
                    return Ok(refused_turn(&fault.message));
                }
                if let Some(change) = endpoint::without_refused(&mut self.options, &mut self.refused, fault) {
                    warn!("model: {change}");
                    body = self.endpoint.format.encode(conversation, tools, &self.options);
                    continue;
                }
            }
            tries += 1;
            let what = describe(&fault);
            let Some(server_wait) = may_pass(&fault) else { return Err(final_error(config, &self.endpoint, &fault)) };
            match retry::next(tries, server_wait, chance()) {
                retry::Next::Wait(wait) => {
                    warn!("model: try {tries} of {}: {what}; again in {:.1} s", retry::TRIES_MAX, wait.as_secs_f64());
                    std::thread::sleep(wait);
                }
                retry::Next::GiveUp(why) => {
                    return Err(ModelError {
                        kind: ModelErrorKind::Unavailable,
                        message: format!("{} {}: given up {why}: {what}", config.provider.name(), config.name),
                    });
                }
            }
        }
    }

    /// One try.
    fn post(&self, config: &ModelConfig, body: &[u8]) -> Result<Turn, Fault> {
        debug!("model: request of {} bytes to {}: {}", body.len(), self.endpoint.url, String::from_utf8_lossy(body));
        let request = Request {
            url: &self.endpoint.url,
            headers: &self.endpoint.headers,
            body,
            silence: config.silence,
            proxy: self.proxy.as_deref(),
        };
        let mut response = self.client.post(&request).map_err(Fault::Http)?;
        let status = response.status;
        if (200..300).contains(&status) && is_stream(&response) {
            return self.read_stream(&mut response, status);
        }
        if (200..300).contains(&status) {
            let answer = response.read_whole(ANSWER_BYTES_MAX).map_err(Fault::Http)?;
            debug!("model: answer of {} bytes: {}", answer.len(), String::from_utf8_lossy(&answer));
            return self.endpoint.format.decode(&answer).map_err(|error| Fault::of_decode(error, status));
        }
        if (300..400).contains(&status) {
            let location = response.header("location").unwrap_or("nowhere").to_owned();
            return Err(Fault::Redirect { status, location: excerpt(&location, MESSAGE_CHARS_MAX) });
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let server_wait = retry::server_wait(response.header("retry-after-ms"), response.header("retry-after"), now);
        let fault = self.endpoint.format.explain(status, &response.read_beginning(ERROR_BYTES_MAX));
        Err(Fault::Api { fault, status, server_wait })
    }
}

impl Connection {
    /// Puts the pieces together as they come. What breaks off before the format's end mark is no answer.
    fn read_stream(&self, response: &mut Response, status: u16) -> Result<Turn, Fault> {
        let (framing, mut stream) = self.endpoint.format.stream();
        let mut parser = Parser::new(framing);
        let mut piece = vec![0; PIECE_BYTES];
        let mut bytes_total = 0;
        loop {
            let length = response.read_piece(&mut piece).map_err(Fault::Http)?;
            bytes_total += length as u64;
            let bytes = piece.get(..length).unwrap_or_default();
            debug!("model: piece of {length} bytes: {}", String::from_utf8_lossy(bytes));
            if length == 0 || bytes_total > ANSWER_BYTES_MAX {
                break;
            }
            let Ok(events) = parser.push(bytes) else { break };
            for event in events {
                let progress = stream.push(&event).map_err(|error| Fault::of_decode(error, status))?;
                if progress == Progress::Whole {
                    return stream.finish().map_err(|error| Fault::of_decode(error, status));
                }
            }
        }
        stream.finish().map_err(|error| Fault::of_decode(error, status))
    }
}

/// Servers that know no streaming answer as a whole, and their header says so.
fn is_stream(response: &Response) -> bool {
    let content_type = response.header("content-type").unwrap_or_default().to_ascii_lowercase();
    content_type.contains("event-stream") || content_type.contains("ndjson")
}

impl Fault {
    fn of_decode(error: DecodeError, status: u16) -> Fault {
        match error {
            DecodeError::Answered(fault) => Fault::Api { fault, status, server_wait: None },
            unreadable @ DecodeError::Unreadable { .. } => Fault::Unreadable(unreadable),
        }
    }
}

/// Whether the fault looks like a server that closed a connection which we had kept.
fn is_stale_connection(fault: &Fault) -> bool {
    matches!(fault, Fault::Http(error) if error.fault() == HttpFault::BrokenOff)
}

/// `None`: asking again does not help. Else what the server said about the wait.
fn may_pass(fault: &Fault) -> Option<Option<Duration>> {
    match fault {
        Fault::Http(error) => match error.fault() {
            HttpFault::NotConnected | HttpFault::BrokenOff | HttpFault::Silent | HttpFault::NotHttp => Some(None),
            HttpFault::Tls | HttpFault::TooLarge | HttpFault::BadRequest => None,
        },
        Fault::Api { fault, server_wait, .. } => match fault.kind {
            FaultKind::RateLimited | FaultKind::Unavailable => Some(*server_wait),
            FaultKind::Unauthorized
            | FaultKind::NotFound
            | FaultKind::QuotaExhausted
            | FaultKind::ContextTooLong
            | FaultKind::Refused
            | FaultKind::BadRequest => None,
        },
        Fault::Unreadable(_) => Some(None),
        Fault::Redirect { .. } => None,
    }
}

fn describe(fault: &Fault) -> String {
    match fault {
        Fault::Http(error) => error.to_string(),
        Fault::Api { fault, status, .. } => format!("status {status}: {}", fault.message),
        Fault::Unreadable(error) => format!("an answer that cannot be read: {error}"),
        Fault::Redirect { status, location } => format!("status {status}: redirected to {location}"),
    }
}

/// What a person has to look at.
fn final_error(config: &ModelConfig, endpoint: &Endpoint, fault: &Fault) -> ModelError {
    let what = describe(fault);
    let source = &config.api_key_source;
    let url = &endpoint.url;
    let fault_kind = match fault {
        Fault::Api { fault, .. } => Some(fault.kind),
        _ => None,
    };
    let (kind, message) = match fault_kind {
        Some(FaultKind::Unauthorized) if config.api_key.is_none() => {
            (ModelErrorKind::Credentials, format!("{source}: no key is set, and {url} wants one ({what})"))
        }
        Some(FaultKind::Unauthorized) => {
            (ModelErrorKind::Credentials, format!("{source}: the key is refused by {url} ({what})"))
        }
        Some(FaultKind::QuotaExhausted) => {
            (ModelErrorKind::Credentials, format!("{source}: the quota of this key is used up ({what})"))
        }
        Some(FaultKind::NotFound) => (
            ModelErrorKind::Unavailable,
            format!(
                "THOUGHTMESH_MODEL_CONFIG: {url} does not know the model {} or is not the right endpoint ({what})",
                config.name
            ),
        ),
        Some(FaultKind::ContextTooLong) => (
            ModelErrorKind::ContextTooLong,
            format!("the conversation no longer fits the model {} ({what})", config.name),
        ),
        _ if matches!(fault, Fault::Redirect { .. }) => (
            ModelErrorKind::Unavailable,
            format!("THOUGHTMESH_MODEL_CONFIG: endpoint: {url} redirects, which is not followed with a key ({what})"),
        ),
        _ => {
            (ModelErrorKind::Unavailable, format!("THOUGHTMESH_MODEL_CONFIG: {url} does not take the request ({what})"))
        }
    };
    ModelError { kind, message }
}

/// What a filter says about the prompt, as the turn that it stands for.
fn refused_turn(message: &str) -> Turn {
    info!("model: the prompt was refused: {message}");
    Turn {
        parts: Vec::<Part>::new(),
        stop_reason: StopReason::Refused,
        usage: Usage { is_estimate: true, ..Usage::default() },
    }
}

/// Unknown usage counts as an estimate, never as nothing.
fn with_estimate(mut turn: Turn, request_bytes: usize) -> Turn {
    if turn.usage.is_estimate {
        let answer_bytes = serde_json::to_vec(&turn.parts).map_or(0, |json| json.len());
        turn.usage.input_tokens = (request_bytes as u64).div_ceil(BYTES_PER_TOKEN);
        turn.usage.output_tokens = (answer_bytes as u64).div_ceil(BYTES_PER_TOKEN);
    }
    turn
}

/// A number from 0 to 1 that differs from process to process; std seeds its hash maps from the kernel.
fn chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
