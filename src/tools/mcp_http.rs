//! An MCP server over HTTP: every message of ours is a POST; the answer is its body, an event stream in it, or, with the servers
//! of 2024-11-05, an event of the stream that was opened at the beginning.
//!
//! All on one thread: while an answer is waited for, the one stream that it belongs to is read, and what the server asks
//! there is answered from within. Credentials go to the origin of the entry's URL and to no other: redirects and the
//! `endpoint` of an old server that lead elsewhere are refused. What may surprise: a stream that ends early is gone on with by
//! GET and the id of its last event, also when it began as the answer to a POST.

use std::time::Duration;

use serde_json::Value;

use super::mcp_desk::{Desk, Patience, Taken};
use super::mcp_fault::{Fault, described};
use super::web::joined;
use crate::config::Network;
use crate::config::options::HeaderOption;
use crate::host::http::{Client, HttpError, HttpFault, Request, Response, Roots, Server};
use crate::secret::Secret;

use crate::wire::mcp::{self, Message};
use crate::wire::sse::{Event, Parser};

/// Of one answer; a server that sends more is broken or hostile. Events have their own limit, in `wire/sse.rs`.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Of an error page that is looked at.
const PAGE_BYTES_MAX: u64 = 64 * 1024;
const PIECE_BYTES: usize = 16 * 1024;
/// More redirects than this are a circle.
const REDIRECTS_MAX: usize = 3;
/// How long to wait before a stream is gone on with, unless the server says so (what the official SDKs take, read 2026-11).
const RESUME_WAIT: Duration = Duration::from_secs(1);
/// What a server may say.
const RESUME_WAIT_MAX: Duration = Duration::from_secs(60);
/// Tries to go on with a stream, in a row and without anything new.
const RESUME_TRIES_MAX: u32 = 3;
/// How long it is waited for what may have come between two turns, and how many pieces of it are taken.
const PENDING_WAIT: Duration = Duration::from_millis(1);
const PENDING_PIECES_MAX: usize = 1000;
/// Limit on an answer that nobody needs.
const COURTESY_TIMEOUT: Duration = Duration::from_secs(2);

/// A request and the headers that only it has.
pub struct Outgoing<'a> {
    pub id: u64,
    /// The answer may bring a session.
    pub opens_session: bool,
    pub body: &'a [u8],
    pub headers: &'a [(String, String)],
}

/// A server and how it is spoken with.
pub struct Http {
    client: Client,
    proxy: Option<String>,
    url: String,
    origin: Server,
    /// Those of the entry, the credential among them.
    headers: Vec<(String, String)>,
    /// As the server issued it.
    session: Option<Secret>,
    /// What was agreed on.
    version: Option<String>,
    old: Option<OldWay>,
}

/// The connection to a server of 2024-11-05.
struct OldWay {
    /// Where messages are posted.
    endpoint: String,
    stream: Stream,
    /// The stream has ended, and the session with it.
    is_lost: bool,
}

/// An event stream that is being read.
struct Stream {
    response: Response,
    parser: Parser,
    last_id: Option<String>,
    retry: Option<Duration>,
}

/// What came of a stream.
enum Read {
    Events(Vec<Event>),
    /// Not in time.
    Nothing,
    End,
}

impl Http {
    /// `Err`: what is wrong with the URL.
    pub fn new(
        url: &str,
        headers: &[HeaderOption],
        token: Option<&Secret>,
        network: &Network,
        roots: &Roots,
    ) -> Result<Http, String> {
        let origin = Server::of(url).ok_or("`url` cannot be asked, look at its host and port")?;
        let mut all: Vec<(String, String)> =
            headers.iter().map(|header| (header.name.clone(), header.value.reveal().to_owned())).collect();
        let is_authorized = all.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some(token) = token.filter(|_| !is_authorized) {
            all.push(("Authorization".to_owned(), format!("Bearer {}", token.reveal())));
        }
        let proxy = network.proxy_for(url).map(str::to_owned);
        let (client, url) = (Client::new(roots), url.to_owned());
        Ok(Http { client, proxy, url, origin, headers: all, session: None, version: None, old: None })
    }

    /// Nothing is agreed on any more.
    pub fn forget(&mut self) {
        (self.session, self.version, self.old) = (None, None, None);
    }

    pub fn agree_on(&mut self, version: &str) {
        self.version = Some(version.to_owned());
    }

    /// The connection must be made anew before anything can be asked.
    pub fn is_lost(&self) -> bool {
        self.old.as_ref().is_some_and(|old| old.is_lost)
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, out: &Outgoing<'_>, desk: &mut Desk, patience: Patience) -> Result<Value, Fault> {
        let Some(mut old) = self.old.take() else { return self.ask_by_post(out, desk, patience) };
        let answer = self.ask_in_old_way(&mut old, out, desk, patience);
        old.is_lost |= matches!(answer, Err(Fault::Lost(_) | Fault::SessionLost | Fault::Other(_)));
        self.old = Some(old);
        answer
    }

    /// Sends what has no answer, or one that does not matter.
    pub fn tell(&mut self, message: &[u8]) {
        let endpoint = self.old.as_ref().map(|old| old.endpoint.clone());
        self.tell_at(endpoint.as_deref(), message);
    }

    /// `endpoint` is that of a server of 2024-11-05.
    fn tell_at(&mut self, endpoint: Option<&str>, message: &[u8]) {
        let url = endpoint.unwrap_or(&self.url).to_owned();
        match self.post(&url, message, &[], COURTESY_TIMEOUT) {
            Ok(response) if endpoint.is_none() => pass_over(response),
            _ => {}
        }
    }

    /// Tells the server that the session is over. Whatever it answers, it is.
    pub fn close(&mut self) {
        if self.session.is_some() && self.old.is_none() {
            let headers = self.all_headers("application/json, text/event-stream", &[]);
            let _ = self.client.delete(&self.request(&self.url, &headers, &[], COURTESY_TIMEOUT));
        }
        self.forget();
    }

    fn ask_by_post(&mut self, out: &Outgoing<'_>, desk: &mut Desk, mut patience: Patience) -> Result<Value, Fault> {
        let url = self.url.clone();
        let mut response = self.post(&url, out.body, out.headers, patience.left())?;
        if !(200..300).contains(&response.status) {
            return Err(self.refusal(&mut response));
        }
        if out.opens_session {
            let session = response.header("mcp-session-id");
            let is_visible = |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
            self.session = session.filter(is_visible).map(Secret::new);
            if let Some(session) = &self.session {
                desk.secrets.add("session", session.reveal());
            }
        }
        if is_event_stream(&response) {
            let mut stream = Stream::new(response);
            return self.read_answer(&mut stream, out.id, desk, &mut patience);
        }
        let body = response.read_whole(BODY_BYTES_MAX).map_err(fault_of)?;
        let Some(messages) = mcp::read(&body) else { return Err(not_mcp(&response, &body)) };
        let mut answer = None;
        for message in messages {
            // An error that names no request can only mean this one.
            if let Message::Response { id: None, outcome } = message {
                answer = Some(outcome);
                continue;
            }
            match desk.take(message, out.id) {
                Taken::Answer(outcome) => answer = Some(outcome),
                Taken::Reply(reply) => self.tell(&reply),
                Taken::Progress | Taken::Nothing => {}
            }
        }
        match answer {
            Some(outcome) => outcome.map_err(|error| Fault::Rpc { status: response.status, error }),
            None => Err(Fault::NotMcp("a message that is no answer".to_owned())),
        }
    }

    /// Reads a stream until the answer is there; one that ends early is gone on with, if that can be.
    fn read_answer(
        &mut self,
        stream: &mut Stream,
        id: u64,
        desk: &mut Desk,
        patience: &mut Patience,
    ) -> Result<Value, Fault> {
        let mut tries = 0;
        loop {
            match stream.read(patience.left())? {
                Read::Nothing => {}
                Read::Events(events) => {
                    tries = if events.is_empty() { tries } else { 0 };
                    if let Some(outcome) = self.take_events(events, id, None, desk, patience) {
                        return outcome.map_err(|error| Fault::Rpc { status: 200, error });
                    }
                }
                Read::End => {
                    let lost = || Fault::Lost("the server broke off its answer".to_owned());
                    let last_id = stream.last_id.clone().ok_or_else(lost)?;
                    loop {
                        tries += 1;
                        if tries > RESUME_TRIES_MAX {
                            return Err(lost());
                        }
                        std::thread::sleep(
                            stream.retry.unwrap_or(RESUME_WAIT).min(RESUME_WAIT_MAX).min(patience.left()),
                        );
                        if patience.is_over() {
                            return Err(Fault::Silent);
                        }
                        if let Some(response) = self.resume(&last_id, patience.left())? {
                            stream.go_on_with(response);
                            break;
                        }
                    }
                }
            }
            if patience.is_over() {
                return Err(Fault::Silent);
            }
        }
    }

    /// The rest of a stream; `None` when another try may help.
    fn resume(&self, last_id: &str, silence: Duration) -> Result<Option<Response>, Fault> {
        let headers = self.all_headers("text/event-stream", &[("Last-Event-ID".to_owned(), last_id.to_owned())]);
        match self.client.listen(&self.request(&self.url, &headers, &[], silence)) {
            Ok(response) if response.status == 200 && is_event_stream(&response) => Ok(Some(response)),
            Ok(response) if matches!(response.status, 429 | 500..) => Ok(None),
            Ok(response) => Err(Fault::Lost(format!(
                "the server broke off its answer, and refuses to go on (status {})",
                response.status
            ))),
            Err(error) => match fault_of(error) {
                Fault::NotTaken { .. } | Fault::Lost(_) => Ok(None),
                fault => Err(fault),
            },
        }
    }

    /// The answer among these events, if it is there; the others are dealt with.
    fn take_events(
        &mut self,
        events: Vec<Event>,
        id: u64,
        endpoint: Option<&str>,
        desk: &mut Desk,
        patience: &mut Patience,
    ) -> Option<Result<Value, mcp::RpcError>> {
        let mut answer = None;
        let texts = events.into_iter().filter(|event| matches!(event.name.as_str(), "" | "message"));
        for event in texts.filter(|event| !event.data.is_empty()) {
            let Some(messages) = mcp::read(event.data.as_bytes()) else {
                desk.warn_of_garbage(event.data.as_bytes());
                continue;
            };
            for message in messages {
                match desk.take(message, id) {
                    Taken::Answer(outcome) => answer = Some(outcome),
                    Taken::Reply(reply) => self.tell_at(endpoint, &reply),
                    Taken::Progress => patience.renew(),
                    Taken::Nothing => {}
                }
            }
        }
        answer
    }

    /// Opens the stream of a server of 2024-11-05. A server that has none is not an MCP server.
    pub fn open_old_way(&mut self, silence: Duration, desk: &mut Desk) -> Result<(), Fault> {
        let headers = self.all_headers("text/event-stream", &[]);
        let mut response = self.client.listen(&self.request(&self.url, &headers, &[], silence)).map_err(fault_of)?;
        if matches!(response.status, 401 | 403 | 429 | 502..=504) {
            return Err(self.refusal(&mut response));
        }
        if response.status != 200 || !is_event_stream(&response) {
            return Err(not_mcp(&response, &[]));
        }
        let mut stream = Stream::new(response);
        let patience = Patience::new(silence);
        while !patience.is_over() {
            let events = match stream.read(patience.left())? {
                Read::Events(events) => events,
                Read::Nothing => return Err(Fault::Silent),
                Read::End => break,
            };
            let Some(first) = events.into_iter().find(|event| !event.data.is_empty()) else { continue };
            if first.name != "endpoint" {
                break;
            }
            let endpoint = joined(&self.url, first.data.trim());
            if Server::of(&endpoint).as_ref() != Some(&self.origin) {
                return Err(Fault::Other(
                    "the server names an endpoint elsewhere, which gets no credentials".to_owned(),
                ));
            }
            secrets_of(&endpoint).for_each(|secret| desk.secrets.add("session", secret));
            self.old = Some(OldWay { endpoint, stream, is_lost: false });
            return Ok(());
        }
        Err(Fault::Other("the event stream does not begin with an endpoint, as that of an MCP server would".to_owned()))
    }

    fn ask_in_old_way(
        &mut self,
        old: &mut OldWay,
        out: &Outgoing<'_>,
        desk: &mut Desk,
        mut patience: Patience,
    ) -> Result<Value, Fault> {
        let mut response = self.post(&old.endpoint, out.body, &[], patience.left())?;
        match response.status {
            // The body is not read, so that the connection closes: some servers read nothing more from it before the call
            // has ended, and the call may need more from us.
            200..300 => {}
            // A session that the server does not know any more.
            400 | 404 | 410 => return Err(Fault::SessionLost),
            _ => return Err(self.refusal(&mut response)),
        }
        drop(response);
        loop {
            match old.stream.read(patience.left())? {
                Read::Nothing => {}
                Read::End => return Err(Fault::Lost("the server closed the event stream".to_owned())),
                Read::Events(events) => {
                    if let Some(outcome) = self.take_events(events, out.id, Some(&old.endpoint), desk, &mut patience) {
                        return outcome.map_err(|error| Fault::Rpc { status: 200, error });
                    }
                }
            }
            if patience.is_over() {
                return Err(Fault::Silent);
            }
        }
    }

    /// Whether there is a stream on which the server speaks between two calls.
    pub fn hears_between_calls(&self) -> bool {
        self.old.is_some()
    }

    /// Takes what has come since the last time, where there is a stream on which something can come.
    pub fn take_pending(&mut self, desk: &mut Desk) {
        let Some(mut old) = self.old.take() else { return };
        for _ in 0..PENDING_PIECES_MAX {
            if old.is_lost {
                break;
            }
            match old.stream.read(PENDING_WAIT) {
                Ok(Read::Nothing) => break,
                // No request is under way, and none has this number.
                Ok(Read::Events(events)) => {
                    self.take_events(events, 0, Some(&old.endpoint), desk, &mut Patience::new(PENDING_WAIT));
                }
                Ok(Read::End) | Err(_) => old.is_lost = true,
            }
        }
        self.old = Some(old);
    }

    /// POSTs; redirects to the same origin that keep the method are followed.
    fn post(
        &mut self,
        url: &str,
        body: &[u8],
        headers: &[(String, String)],
        silence: Duration,
    ) -> Result<Response, Fault> {
        let headers = self.all_headers("application/json, text/event-stream", headers);
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.client.post(&self.request(&url, &headers, body, silence)).map_err(fault_of)?;
            let location = response.header("location").filter(|_| (300..400).contains(&response.status));
            let Some(location) = location else { return Ok(response) };
            let next = joined(&url, location);
            let is_same = Server::of(&next).as_ref() == Some(&self.origin);
            if !is_same || !matches!(response.status, 307 | 308) {
                let place = if is_same { "a place that is not asked in the same way" } else { "another server" };
                let what =
                    format!("redirects to {place}, which is not followed with credentials; put its URL into `url`");
                return Err(Fault::Other(format!("status {}: {what}", response.status)));
            }
            if url == self.url {
                // So that a slash at the end does not cost every message a second exchange.
                self.url.clone_from(&next);
            }
            url = next;
        }
        Err(Fault::Other(format!("more than {REDIRECTS_MAX} redirects in a row")))
    }

    fn all_headers(&self, accept: &str, further: &[(String, String)]) -> Vec<(String, String)> {
        let mut all = self.headers.clone();
        all.push(("Accept".to_owned(), accept.to_owned()));
        all.extend(self.version.iter().map(|version| ("MCP-Protocol-Version".to_owned(), version.clone())));
        all.extend(self.session.iter().map(|session| ("Mcp-Session-Id".to_owned(), session.reveal().to_owned())));
        all.extend_from_slice(further);
        all
    }

    fn request<'a>(
        &'a self,
        url: &'a str,
        headers: &'a [(String, String)],
        body: &'a [u8],
        silence: Duration,
    ) -> Request<'a> {
        // No time left is not the same as no limit.
        let silence = silence.max(Duration::from_millis(1));
        Request { url, headers, body, silence, proxy: self.proxy.as_deref() }
    }

    /// What an answer means whose status is not a good one.
    fn refusal(&self, response: &mut Response) -> Fault {
        let status = response.status;
        let wait = response.header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let page = response.read_beginning(PAGE_BYTES_MAX);
        let error = mcp::read(&page).into_iter().flatten().find_map(|message| match message {
            Message::Response { outcome: Err(error), .. } => Some(error),
            _ => None,
        });
        let text = match &error {
            Some(error) => error.message.clone(),
            None => plain_text(&page),
        };
        let names_session = || text.to_ascii_lowercase().contains("session");
        match status {
            401 | 403 => Fault::Unauthorized { status, text },
            404 if self.session.is_some() => Fault::SessionLost,
            // Some servers say it so.
            400 if self.session.is_some() && names_session() => Fault::SessionLost,
            429 | 503 => Fault::NotTaken { what: described(status, &text), wait },
            502 | 504 => Fault::Lost(described(status, &text)),
            _ => match error {
                Some(error) => Fault::Rpc { status, error },
                None => Fault::Status { status, text },
            },
        }
    }
}

impl Stream {
    fn new(response: Response) -> Stream {
        Stream { response, parser: Parser::default(), last_id: None, retry: None }
    }

    fn go_on_with(&mut self, response: Response) {
        (self.response, self.parser) = (response, Parser::default());
    }

    fn read(&mut self, wait: Duration) -> Result<Read, Fault> {
        let mut piece = [0; PIECE_BYTES];
        let length = match self.response.read_within(wait, &mut piece) {
            Ok(None) => return Ok(Read::Nothing),
            Ok(Some(0)) => return Ok(Read::End),
            Ok(Some(length)) => length,
            Err(error) if error.fault() == HttpFault::BrokenOff => return Ok(Read::End),
            Err(error) => return Err(fault_of(error)),
        };
        let events = self.parser.push(piece.get(..length).unwrap_or_default());
        let events = events.map_err(|_| Fault::Lost("the server sent an event that is too large".to_owned()))?;
        for event in &events {
            if let Some(id) = &event.id {
                // One that cannot stand in a header cannot be given back.
                self.last_id =
                    Some(id.clone()).filter(|id| id.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && !id.is_empty());
            }
            self.retry = event.retry_ms.map(Duration::from_millis).or(self.retry);
        }
        Ok(Read::Events(events))
    }
}

/// Reads a short body, so that its connection can be used again; any other ends with the connection.
fn pass_over(mut response: Response) {
    let length = response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(u64::MAX);
    if length <= PAGE_BYTES_MAX {
        response.read_beginning(length.saturating_add(1));
    }
}

fn is_event_stream(response: &Response) -> bool {
    response.header("content-type").unwrap_or_default().to_ascii_lowercase().contains("text/event-stream")
}

/// What is no answer of an MCP server.
fn not_mcp(response: &Response, body: &[u8]) -> Fault {
    if body.is_empty() && matches!(response.status, 202 | 204) {
        return Fault::NotMcp(format!("status {} and no body: there will be no answer", response.status));
    }
    let kind = response.header("content-type").unwrap_or("no content type");
    Fault::NotMcp(format!("status {} with {kind}", response.status))
}

/// The words of an error page, if it is one that was written for programs.
fn plain_text(page: &[u8]) -> String {
    let text = String::from_utf8_lossy(page);
    let text = text.trim();
    if text.starts_with('<') { String::new() } else { text.chars().take(300).collect() }
}

/// The parts of an endpoint that look like the id of a session.
fn secrets_of(endpoint: &str) -> impl Iterator<Item = &str> {
    const ID_BYTES_MIN: usize = 16;
    endpoint.split(['/', '?', '&', '=']).filter(|part| part.len() >= ID_BYTES_MIN && !part.contains('.'))
}

fn fault_of(error: HttpError) -> Fault {
    match error.fault() {
        HttpFault::NotConnected => Fault::NotTaken { what: error.to_string(), wait: None },
        HttpFault::BrokenOff => Fault::Lost(error.to_string()),
        HttpFault::Silent => Fault::Silent,
        _ => Fault::Other(error.to_string()),
    }
}
