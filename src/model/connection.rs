//! A provider that is asked over HTTP: encode, post, decode, and again when that may help.
//!
//! What may pass is tried again within `retry`'s bounds; what a person must repair ends the run. Surprising: a refused prompt
//! is a turn, not an error, because the model may find another way.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use log::{debug, info, warn};

use super::credential::{Credential, CredentialFault};
use super::endpoint::{self, Endpoint};
use super::ollama::Ollama;
use super::{ModelError, ModelErrorKind, retry};
use crate::config::{ModelConfig, Network};
use crate::conversation::{Conversation, StopReason, Tools, Turn, Usage};
use crate::host::http::{Client, HttpError, HttpFault, Request, Response, Roots};
use crate::secret::Secrets;
use crate::wire::{
    self, ApiFault, DecodeError, FaultKind, MESSAGE_CHARS_MAX, Options, Parser, Progress, WireFormat, excerpt,
};

/// Bytes of an answer that are read: far above the longest text a model writes.
const ANSWER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of a streamed answer that are read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Bytes of an error page that are read.
const ERROR_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of English text and JSON for a token, for providers that do not count (OpenAI's help page "What are tokens", read
/// 2026-11).
const BYTES_PER_TOKEN: u64 = 4;

pub struct Connection {
    client: Client,
    proxy: Option<String>,
    endpoint: Endpoint,
    credential: Credential,
    options: Options,
    /// The last one that was sent.
    request: wire::Request,
    /// What is offered to a model that cannot call any.
    no_tools: Tools,
    /// Parameters that the provider refused in this run.
    refused: Vec<String>,
    /// The model cannot call tools: it is asked without them, and finishes in words.
    is_without_tools: bool,
    /// An exchange went well, so that the next one may meet a connection that the server has closed meanwhile.
    was_used: bool,
    secrets: Secrets,
    /// What Ollama's servers need beside the exchange itself.
    ollama: Ollama,
}

/// Why one try failed.
pub enum Fault {
    Http(HttpError),
    Api {
        fault: ApiFault,
        status: u16,
        server_wait: Option<Duration>,
    },
    Unreadable(DecodeError),
    Redirect {
        status: u16,
        location: String,
    },
    Credential(String),
    /// Of the metadata server, which starts with the pod.
    TokenNotReady(String),
}

impl Connection {
    pub fn new(config: &ModelConfig, network: &Network, roots: &Roots, secrets: &Secrets) -> Connection {
        Connection {
            secrets: secrets.clone(),
            client: Client::new(roots),
            proxy: network.proxy_for(&config.endpoint).map(str::to_owned),
            request: wire::Request::new(endpoint::endpoint(config).format),
            no_tools: Tools::default(),
            endpoint: endpoint::endpoint(config),
            credential: Credential::of(config),
            options: endpoint::options(config),
            refused: Vec::new(),
            is_without_tools: false,
            was_used: false,
            ollama: Ollama::default(),
        }
    }

    /// Where it is asked, without secrets.
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// Tokens of context that the server keeps for this run, where that is agreed with it.
    pub fn served_window(&self) -> Option<u64> {
        self.ollama.window()
    }

    /// The answer. Waits, and asks again, as long as that may help.
    pub fn ask(
        &mut self,
        config: &ModelConfig,
        conversation: &Conversation,
        tools: &Tools,
    ) -> Result<Turn, ModelError> {
        let mut tries = 0;
        loop {
            let fault = match self.attempt(config, conversation, tools) {
                Ok(turn) => {
                    self.was_used = true;
                    return Ok(turn);
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
                if let Some(change) = self.repair(fault) {
                    warn!("model: {change}");
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
    fn attempt(&mut self, config: &ModelConfig, conversation: &Conversation, tools: &Tools) -> Result<Turn, Fault> {
        let headers = self.headers()?;
        if self.endpoint.format == WireFormat::Ollama && !self.ollama.is_prepared() {
            self.prepare_ollama(config, &headers)?;
        }
        // After the preparation, which may show that the model has no tools.
        let tools = if self.is_without_tools { &self.no_tools } else { tools };
        self.request.encode(conversation, tools, &self.options);
        let turn = self.post(config, &headers, self.request.body())?;
        let turn = with_estimate(turn, self.request.body().len());
        if self.endpoint.format == WireFormat::Ollama {
            self.ollama.check_prompt(conversation, tools, turn.usage)?;
        }
        Ok(turn)
    }

    /// All headers, the credential among them; also the project in the URL, where only the metadata server knows it.
    fn headers(&mut self) -> Result<Vec<(String, String)>, Fault> {
        if self.endpoint.url.contains(endpoint::PROJECT) {
            let project = self.credential.project(&self.client).map_err(Fault::of_credential)?;
            let project = project.ok_or_else(|| Fault::Credential("no project is set".to_owned()))?;
            self.endpoint.url = self.endpoint.url.replace(endpoint::PROJECT, &project);
        }
        let header = self.credential.header(&self.client).map_err(Fault::of_credential)?;
        Ok(self.endpoint.headers.iter().cloned().chain(header).collect())
    }

    fn post(&self, config: &ModelConfig, headers: &[(String, String)], body: &[u8]) -> Result<Turn, Fault> {
        debug!("model: request of {} bytes to {}: {}", body.len(), self.endpoint.url, String::from_utf8_lossy(body));
        let proxy = self.proxy.as_deref();
        let request = Request { url: &self.endpoint.url, headers, body, silence: config.silence, proxy };
        let mut response = self.client.post(&request).map_err(Fault::Http)?;
        let status = response.status;
        if (200..300).contains(&status) && is_stream(&response) {
            return self.read_stream(response);
        }
        if (200..300).contains(&status) {
            let answer = response.read_whole(ANSWER_BYTES_MAX).map_err(Fault::Http)?;
            debug!("model: answer of {} bytes: {}", answer.len(), String::from_utf8_lossy(&answer));
            // The words that an error quotes are cut, and half a key would no longer be found: so they are masked first.
            let format = self.endpoint.format;
            return format.decode(&answer).or_else(|_| format.decode(&self.masked(&answer))).map_err(Fault::of_decode);
        }
        if (300..400).contains(&status) {
            let location = response.header("location").unwrap_or("nowhere").to_owned();
            let location = self.secrets.mask(&location);
            return Err(Fault::Redirect { status, location: excerpt(&location, MESSAGE_CHARS_MAX) });
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let header_wait = retry::server_wait(response.header("retry-after-ms"), response.header("retry-after"), now);
        let page = self.masked(&response.read_beginning(ERROR_BYTES_MAX));
        let fault = self.endpoint.format.explain(status, &page);
        let server_wait = header_wait.or(fault.retry_after);
        Err(Fault::Api { fault, status, server_wait })
    }

    /// The bytes without secrets.
    fn masked(&self, bytes: &[u8]) -> Vec<u8> {
        self.secrets.mask(&String::from_utf8_lossy(bytes)).into_owned().into_bytes()
    }

    /// Puts the pieces together as they come. What breaks off before the format's end mark is no answer.
    fn read_stream(&self, mut response: Response) -> Result<Turn, Fault> {
        let (framing, mut stream) = self.endpoint.format.stream();
        let mut parser = Parser::new(framing);
        // Not of the heap, which would ask the kernel for so much each time.
        let mut piece = [0; PIECE_BYTES];
        let mut bytes_total = 0;
        loop {
            let length = response.read_piece(&mut piece).map_err(Fault::Http)?;
            bytes_total += length as u64;
            let bytes = piece.get(..length).unwrap_or_default();
            debug!("model: piece of {length} bytes: {}", String::from_utf8_lossy(bytes));
            if length == 0 || bytes_total > ANSWER_BYTES_MAX {
                return stream.finish().map_err(Fault::of_decode);
            }
            let Ok(events) = parser.push(bytes) else { return stream.finish().map_err(Fault::of_decode) };
            for event in events {
                if stream.push(&event).map_err(Fault::of_decode)? == Progress::Whole {
                    response.skip_end();
                    return stream.finish().map_err(Fault::of_decode);
                }
            }
        }
    }

    /// Changes what the provider refuses, if it is something that we sent on the user's behalf. Says what was changed.
    fn repair(&mut self, fault: &ApiFault) -> Option<String> {
        let refuses_tools = fault.kind == FaultKind::BadRequest && fault.parameter.as_deref() == Some("tools");
        if refuses_tools && self.endpoint.format == WireFormat::Ollama && !self.is_without_tools {
            self.is_without_tools = true;
            return Some("this model cannot call tools, it is asked without them".to_owned());
        }
        endpoint::without_refused(self.endpoint.format, &mut self.options, &mut self.refused, fault)
    }

    /// Asks Ollama's server what the model can hold, once.
    fn prepare_ollama(&mut self, config: &ModelConfig, headers: &[(String, String)]) -> Result<(), Fault> {
        let url = self.endpoint.url.replace("/api/chat", "/api/show");
        let body = serde_json::json!({"model": config.name}).to_string().into_bytes();
        let proxy = self.proxy.as_deref();
        let request = Request { url: &url, headers, body: &body, silence: config.silence, proxy };
        let mut response = self.client.post(&request).map_err(Fault::Http)?;
        // Servers that are only compatible do not know it: then nothing is known.
        let shown = if response.status == 200 { response.read_beginning(ANSWER_BYTES_MAX) } else { Vec::new() };
        self.is_without_tools |= self.ollama.prepare(&shown, config.context_window, &mut self.options);
        Ok(())
    }
}

/// Servers that know no streaming answer as a whole, and their header says so.
fn is_stream(response: &Response) -> bool {
    let content_type = response.header("content-type").unwrap_or_default().to_ascii_lowercase();
    content_type.contains("event-stream") || content_type.contains("ndjson")
}

impl Fault {
    fn of_decode(error: DecodeError) -> Fault {
        match error {
            DecodeError::Answered(fault) => Fault::Api { server_wait: fault.retry_after, fault, status: 200 },
            unreadable @ DecodeError::Unreadable { .. } => Fault::Unreadable(unreadable),
        }
    }

    fn of_credential(fault: CredentialFault) -> Fault {
        match fault {
            CredentialFault::Http(error) => Fault::Http(error),
            CredentialFault::NotReady(what) => Fault::TokenNotReady(what),
            CredentialFault::Refused(what) => Fault::Credential(what),
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
            HttpFault::Tls | HttpFault::TooLarge | HttpFault::Refused | HttpFault::BadRequest => None,
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
        Fault::Unreadable(_) | Fault::TokenNotReady(_) => Some(None),
        Fault::Redirect { .. } | Fault::Credential(_) => None,
    }
}

fn describe(fault: &Fault) -> String {
    match fault {
        Fault::Http(error) => error.to_string(),
        Fault::Api { fault, status, .. } => format!("status {status}: {}", fault.message),
        Fault::Unreadable(error) => format!("an answer that cannot be read: {error}"),
        Fault::Redirect { status, location } => format!("status {status}: redirected to {location}"),
        Fault::Credential(what) | Fault::TokenNotReady(what) => {
            format!("the metadata server gives no token: {what}")
        }
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
        // Before the unknown model: some servers say it under 404.
        Some(FaultKind::NotFound | FaultKind::BadRequest) if says_other_api(&what) => (
            ModelErrorKind::Unavailable,
            format!("THOUGHTMESH_MODEL_CONFIG: api: {url} wants the other one of chat and responses ({what})"),
        ),
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
        _ if matches!(fault, Fault::Credential(_)) => (
            ModelErrorKind::Credentials,
            format!("{source}: no key is set, and there is no other way to {url} ({what})"),
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
    Turn { parts: Vec::new(), stop_reason: StopReason::Refused, usage: Usage { is_estimate: true, ..Usage::default() } }
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

/// Models that are served over one of OpenAI's formats only say so by the path of the other one.
fn says_other_api(what: &str) -> bool {
    what.contains("v1/responses") || what.contains("v1/chat/completions")
}
