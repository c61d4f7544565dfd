//! One MCP server: how it begins, what it offers, and calls.
//!
//! Which of the two protocols of MCP it speaks is found out at the beginning (specification, "Backward compatibility", read
//! 2026-11). One over HTTP that is not there yet is waited for; one that is lost is begun with anew. What may surprise: a call
//! whose answer got lost is not made again, because it may have been carried out. Only a tool that says of itself that this
//! does no harm is called twice.

use std::time::{Duration, Instant};

use log::{info, warn};
use serde_json::{Map, Value, json};

use super::ToolError;
use super::child::Surroundings;
use super::excerpt::{beginning, excerpt};
use super::mcp_desk::{Desk, Patience};
use super::mcp_fault::{Asked, Fault, described};
use super::mcp_http::{Http, Outgoing};
use super::mcp_stdio::Stdio;
use crate::config::options::{McpOptions, McpServer};
use crate::config::read::nearest;
use crate::config::{Network, ToolEntry, ToolKind};
use crate::host::Deadline;
use crate::host::http::Roots;
use crate::wire::mcp::{self, Called, Era, Peer, RpcError, Tool, Wanted};

/// Limit on the silence of a server that is beginning or lists its tools; the entry's own counts if it is shorter.
const BEGIN_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Between two tries to reach a server at the beginning: the first wait and the longest.
const BEGIN_WAIT_MIN: Duration = Duration::from_millis(100);
const BEGIN_WAIT_MAX: Duration = Duration::from_secs(3);
/// Pages of a list that are asked for, and tools that are taken from them.
const PAGES_MAX: usize = 100;
const TOOLS_MAX: usize = 10_000;
/// Of an error message of a server's.
const MESSAGE_BYTES_MAX: usize = 2000;
/// Tries of a call that the server refuses to take, and how long it may want us to wait for each.
const CALL_TRIES_MAX: u32 = 4;
const CALL_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often a server may ask to be asked again.
const ROUNDS_MAX: u32 = 8;
/// How often a server that has ended is started again.
const RESTARTS_MAX: u32 = 1;

/// One entry.
pub struct Server {
    pub entry: ToolEntry,
    pub options: McpOptions,
    surroundings: Surroundings,
    pub transport: Transport,
    era: Era,
    peer: Peer,
    requests: u64,
    /// What is offered of it.
    pub tools: Vec<Tool>,
    pub desk: Desk,
    /// A tool of it was called since the list was asked for.
    was_called: bool,
    /// Its tools are not those that the model was told of.
    is_changed: bool,
    /// What it was asked at last.
    asked: &'static str,
    /// When a child was sent `initialize`.
    begun: Instant,
    /// Tools that cannot be called, of which has been warned.
    left_out: Vec<String>,
    restarts: u32,
    /// Why it will not be asked any more.
    is_given_up: Option<String>,
}

/// How it is reached.
pub enum Transport {
    Stdio(Box<Stdio>),
    Http(Box<Http>),
}

impl Server {
    /// The first step, which waits for nobody: a child is started and asked.
    pub fn begin(
        entry: &ToolEntry,
        surroundings: Surroundings,
        network: &Network,
        roots: &Roots,
    ) -> Result<Server, String> {
        let ToolKind::Mcp(options) = &entry.kind else { return Err("not an MCP server".to_owned()) };
        let mut directories = Vec::new();
        let transport = match &options.server {
            McpServer::Http { url, headers, token, .. } => {
                Transport::Http(Box::new(Http::new(url, headers, token.as_ref(), network, roots)?))
            }
            McpServer::Child { roots, .. } => {
                let absolute = roots.iter().map(|root| surroundings.directory.join(root));
                // `.` at the end says nothing.
                let plain = absolute.map(|path| path.components().collect::<std::path::PathBuf>());
                directories = plain.map(|path| mcp::file_uri(&path.to_string_lossy())).collect();
                let stdio = Stdio::start(&options.server, &surroundings)?;
                Transport::Stdio(Box::new(stdio))
            }
        };
        let desk = Desk::new(&entry.name, directories, surroundings.secrets.clone());
        let mut server = Server {
            entry: entry.clone(),
            options: options.clone(),
            surroundings,
            transport,
            era: Era::Legacy,
            peer: Peer::default(),
            requests: 0,
            tools: Vec::new(),
            desk,
            was_called: false,
            is_changed: false,
            asked: "initialize",
            left_out: Vec::new(),
            restarts: 0,
            begun: Instant::now(),
            is_given_up: None,
        };
        server.tell_initialize();
        Ok(server)
    }

    /// Begins, lists, and looks whether that is what the entry wants. `Err` is worded for the person.
    pub fn start(&mut self, patience: Duration) -> Result<(), String> {
        let tools = self.connect(Deadline::after(patience)).map_err(|fault| self.sentence(&fault))?;
        let offered: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        let unknown = |name: &&String| !offered.contains(&name.as_str());
        if let Some(name) = self.options.allow.iter().flatten().find(unknown) {
            let near = nearest(name, offered.iter().copied()).map(|near| format!(", did you mean `{near}`"));
            let list = beginning(&offered.join(", "), MESSAGE_BYTES_MAX).to_owned();
            return Err(format!(
                "config.allow: the server has no tool `{name}`{}; accepted: {list}",
                near.unwrap_or_default()
            ));
        }
        if let Some(name) = self.options.deny.iter().find(unknown) {
            warn!("tool {}: config.deny: the server has no tool `{name}`", self.entry.name);
        }
        if offered.is_empty() {
            return Err("the server offers no tools, so there is nothing to call".to_owned());
        }
        let count = offered.len();
        self.offer(tools);
        self.is_changed = false;
        match self.tools.len() {
            0 => Err(format!("config.allow and config.deny leave none of the server's {count} tools")),
            left => {
                info!("tool {}: MCP {}, {left} of {count} tools offered", self.entry.name, self.peer.version);
                Ok(())
            }
        }
    }

    /// Reaches the server, begins and asks for the list. One over HTTP that is not there yet is tried again for a while.
    fn connect(&mut self, patience: Deadline) -> Result<Vec<Tool>, Fault> {
        let mut wait = BEGIN_WAIT_MIN;
        loop {
            let fault = match self.begin_and_list() {
                Ok(tools) => return Ok(tools),
                Err(fault) => fault,
            };
            let next = match &fault {
                Fault::NotTaken { wait: Some(wanted), .. } if *wanted <= patience.left() => *wanted,
                Fault::NotTaken { wait: None, .. } | Fault::Lost(_) | Fault::SessionLost => wait.min(patience.left()),
                Fault::Status { status: 500.., .. } => wait.min(patience.left()),
                _ => return Err(fault),
            };
            if matches!(self.transport, Transport::Stdio(_)) || patience.has_passed() {
                return Err(fault);
            }
            info!("tool {}: {}; again in {:.1} s", self.entry.name, self.sentence(&fault), next.as_secs_f64());
            std::thread::sleep(next);
            wait = BEGIN_WAIT_MAX.min(wait * 2);
        }
    }

    fn begin_and_list(&mut self) -> Result<Vec<Tool>, Fault> {
        match self.transport {
            Transport::Stdio(_) => self.begin_stdio()?,
            Transport::Http(_) => {
                if let Some(tools) = self.begin_http()? {
                    return Ok(tools);
                }
            }
        }
        if self.peer.has_tools { self.list() } else { Ok(Vec::new()) }
    }

    /// A child has been sent `initialize` already; some end at anything else. One that refuses it may be a modern one.
    fn begin_stdio(&mut self) -> Result<(), Fault> {
        // It has had time while others were waited for.
        let patience = Patience::new(self.begin_silence().saturating_sub(self.begun.elapsed()));
        let refused = match self.answer_stdio(patience) {
            Ok(result) => return self.initialized(&result),
            Err(Fault::Rpc { error, .. }) if mcp::looks_modern(&error) => error,
            Err(fault) => return Err(fault),
        };
        self.era = Era::Modern;
        match self.discover() {
            Ok(()) => Ok(()),
            Err(Fault::Rpc { .. } | Fault::NotMcp(_)) => Err(Fault::Rpc { status: 0, error: refused }),
            Err(fault) => Err(fault),
        }
    }

    /// The modern protocol is tried first; what does not answer as one of it would is spoken to in the older one. Gives the list
    /// where that was the way to find out.
    fn begin_http(&mut self) -> Result<Option<Vec<Tool>>, Fault> {
        self.forget();
        self.era = Era::Modern;
        let mut found = self.discover();
        if let Err(Fault::Rpc { error: RpcError { code: mcp::VERSION_UNSUPPORTED, data, .. }, .. }) = &found {
            // Some refuse the first request only to see whether the next one is better.
            let error = RpcError { data: data.clone(), ..RpcError::default() };
            let versions = mcp::versions_in(&error);
            if versions.iter().any(|version| version == mcp::MODERN) {
                found = self.discover();
            } else if !versions.is_empty() && !versions.iter().any(|version| is_legacy(version)) {
                return Err(Fault::Other(unknown_version(&versions.join(", "))));
            }
        }
        match found {
            Ok(()) => return Ok(None),
            Err(Fault::Rpc { error, .. }) if matches!(error.code, mcp::HEADER_MISMATCH | mcp::CAPABILITY_MISSING) => {
                return Err(Fault::Rpc { status: 400, error });
            }
            // A modern server that does not know `server/discover`, or a legacy one that uses the status.
            Err(Fault::Rpc { status: 404, error }) if error.code == mcp::METHOD_NOT_FOUND => {
                self.peer = Peer { version: mcp::MODERN.to_owned(), ..Peer::default() };
                if let Ok(tools) = self.list() {
                    return Ok(Some(tools));
                }
            }
            Err(Fault::Rpc { .. } | Fault::Status { .. } | Fault::NotMcp(_) | Fault::SessionLost) => {}
            Err(fault) => return Err(fault),
        }
        self.era = Era::Legacy;
        self.forget();
        let first = match self.initialize() {
            Ok(()) => return Ok(None),
            Err(Fault::Status { status, text }) if matches!(status, 400 | 404 | 405) => described(status, &text),
            Err(fault) => return Err(fault),
        };
        let silence = self.begin_silence();
        if let Transport::Http(http) = &mut self.transport {
            http.open_old_way(silence, &mut self.desk).map_err(|fault| match fault {
                Fault::NotMcp(what) => Fault::NotMcp(format!("POST is answered with {first}, GET with {what}")),
                fault => fault,
            })?;
        }
        self.initialize().map(|()| None)
    }

    fn forget(&mut self) {
        if let Transport::Http(http) = &mut self.transport {
            http.forget();
            // Without the ids of sessions that are over.
            self.desk.secrets = self.surroundings.secrets.clone();
        }
    }

    /// Asks a server which versions it speaks. A server that speaks only older ones counts as one that does not know.
    fn discover(&mut self) -> Result<(), Fault> {
        let result = self.exchange("server/discover", json!({}), self.begin_silence())?;
        let Some((peer, versions)) = mcp::read_discovered(&result) else {
            return Err(Fault::NotMcp("a result that is none of server/discover".to_owned()));
        };
        if versions.iter().any(|version| version == mcp::MODERN) {
            self.peer = peer;
            return Ok(());
        }
        match versions.iter().any(|version| is_legacy(version)) {
            true => Err(Fault::NotMcp("a server of the older protocol".to_owned())),
            false => Err(Fault::Other(unknown_version(&versions.join(", ")))),
        }
    }

    fn initialize(&mut self) -> Result<(), Fault> {
        let result = self.exchange("initialize", mcp::initialize_params(false), self.begin_silence())?;
        self.initialized(&result)
    }

    fn initialized(&mut self, result: &Value) -> Result<(), Fault> {
        let none = || Fault::NotMcp("a result that is none of initialize".to_owned());
        self.peer = mcp::read_initialized(result).ok_or_else(none)?;
        if !is_legacy(&self.peer.version) {
            return Err(Fault::Other(unknown_version(&self.peer.version)));
        }
        if let Transport::Http(http) = &mut self.transport {
            http.agree_on(&self.peer.version);
        }
        self.tell(&mcp::notification("notifications/initialized", Value::Null));
        Ok(())
    }

    /// All pages of the list. What cannot be offered is left out with a warning.
    fn list(&mut self) -> Result<Vec<Tool>, Fault> {
        self.desk.is_list_stale = false;
        self.was_called = false;
        let mut tools: Vec<Tool> = Vec::new();
        let mut cursor: Option<String> = None;
        for page in 1.. {
            let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let result = self.exchange("tools/list", params, self.begin_silence())?;
            let none = || Fault::NotMcp("a result that is none of tools/list".to_owned());
            let (found, next) = mcp::read_page(result).ok_or_else(none)?;
            tools.extend(found);
            let is_new = next.is_some() && next != cursor;
            cursor = next;
            if !is_new {
                break;
            }
            if page >= PAGES_MAX || tools.len() > TOOLS_MAX {
                warn!("tool {}: the server's list has no end, its beginning is used", self.entry.name);
                break;
            }
        }
        tools.truncate(TOOLS_MAX);
        tools.retain(|tool| self.can_call(tool));
        Ok(tools)
    }

    fn can_call(&mut self, tool: &Tool) -> bool {
        let why = match &tool.mirrored {
            _ if tool.needs_task => "it can only be called as a task, which is not done here",
            Err(what) if self.era == Era::Modern && matches!(self.transport, Transport::Http(_)) => what,
            _ => return true,
        };
        let (name, why) = (self.desk.shown(&tool.name), self.desk.shown(why));
        if !self.left_out.contains(&name) {
            warn!("tool {}: {name} is not offered: {why}", self.entry.name);
            self.left_out.push(name);
        }
        false
    }

    /// Takes these tools, but for those that the entry does not want.
    fn offer(&mut self, mut tools: Vec<Tool>) {
        let McpOptions { allow, deny, .. } = &self.options;
        tools
            .retain(|tool| allow.as_ref().is_none_or(|allow| allow.contains(&tool.name)) && !deny.contains(&tool.name));
        self.is_changed |= tools != self.tools;
        self.tools = tools;
    }

    /// Takes what the server has said since the last turn, and asks for the list if it is another one now.
    pub fn refresh(&mut self) -> bool {
        self.take_pending();
        // Over streamable HTTP nobody tells us between two calls.
        let is_deaf = matches!(&self.transport, Transport::Http(http) if !http.hears_between_calls());
        let is_stale = self.desk.is_list_stale || is_deaf && self.peer.tells_changes && self.was_called;
        if is_stale && self.is_given_up.is_none() && !self.has_ended() {
            match self.list() {
                Ok(tools) => self.offer(tools),
                Err(fault) => {
                    warn!("tool {}: its tools cannot be listed again: {}", self.entry.name, self.sentence(&fault));
                }
            }
        }
        if self.is_changed {
            info!("tool {}: the server offers other tools now, {} of them", self.entry.name, self.tools.len());
        }
        std::mem::take(&mut self.is_changed)
    }

    fn take_pending(&mut self) {
        match &mut self.transport {
            Transport::Stdio(stdio) => stdio.take_pending(&mut self.desk),
            Transport::Http(http) => http.take_pending(&mut self.desk),
        }
    }

    /// Whether the connection must be made anew.
    fn has_ended(&self) -> bool {
        match &self.transport {
            Transport::Stdio(stdio) => stdio.end().is_some(),
            Transport::Http(http) => http.is_lost(),
        }
    }

    /// Makes the connection anew; a child only so often.
    fn revive(&mut self) -> Result<(), ToolError> {
        let name = &self.entry.name;
        if let Some(why) = &self.is_given_up {
            return Err(ToolError::Failed(format!("the server {name} is not there any more: {why}")));
        }
        if let Transport::Stdio(stdio) = &mut self.transport {
            let why = stdio.end().unwrap_or("it ended").to_owned();
            if self.restarts >= RESTARTS_MAX {
                let text = format!("it was started again once already, and {why}");
                warn!("tool {name}: given up: {text}");
                self.is_given_up = Some(text.clone());
                return Err(ToolError::Failed(format!("the server {name} is not there any more: {text}")));
            }
            self.restarts += 1;
            warn!("tool {name}: {why}; it is started again");
            match Stdio::start(&self.options.server, &self.surroundings) {
                Ok(again) => **stdio = again,
                Err(why) => return Err(self.give_up(&why)),
            }
            self.tell_initialize();
        } else {
            warn!("tool {name}: the connection was lost, it is made anew");
        }
        match self.connect(Deadline::after(self.options.start_timeout)) {
            Ok(tools) => {
                self.offer(tools);
                Ok(())
            }
            Err(fault) => {
                let why = self.sentence(&fault);
                Err(match self.transport {
                    Transport::Stdio(_) => self.give_up(&why),
                    // It may come back.
                    Transport::Http(_) => ToolError::Failed(why),
                })
            }
        }
    }

    fn give_up(&mut self, why: &str) -> ToolError {
        let why = self.desk.shown(why);
        warn!("tool {}: given up: {why}", self.entry.name);
        let error =
            ToolError::Failed(format!("the server {} ended and cannot be started again: {why}", self.entry.name));
        self.is_given_up = Some(why);
        error
    }

    pub fn call(&mut self, tool: &Tool, arguments: &Map<String, Value>) -> Result<String, ToolError> {
        self.take_pending();
        if self.is_given_up.is_some() || self.has_ended() {
            self.revive()?;
        }
        let (mut tries, mut rounds, mut wanted) = (0, 0, Wanted::default());
        let mut was_revived = false;
        loop {
            if !self.tools.iter().any(|other| other.name == tool.name) {
                let what = "there is no such tool any more, the server does not offer it";
                return Err(ToolError::Unknown(what.to_owned()));
            }
            let fault = match self.exchange_call(tool, arguments, &wanted) {
                Ok(result) => match mcp::read_called(&result) {
                    Called::Done { text, is_error } => return self.told(&text, is_error),
                    Called::Again(back) if rounds < ROUNDS_MAX => {
                        (rounds, wanted) = (rounds + 1, back);
                        continue;
                    }
                    Called::Again(_) => Fault::Other("the server wants to be asked again and again".to_owned()),
                    Called::NeedsInput => {
                        Fault::Other("the server wants something from a person, and here is none".to_owned())
                    }
                    Called::Unreadable => Fault::Other("the server's result cannot be read".to_owned()),
                },
                Err(fault) => fault,
            };
            match fault {
                Fault::NotTaken { what, wait } if tries + 1 < CALL_TRIES_MAX => {
                    let wait = wait.unwrap_or(Duration::from_millis(500) * 2_u32.pow(tries));
                    if wait > CALL_WAIT_MAX {
                        let what = format!("{what}; the server wants a wait of {} s", wait.as_secs());
                        return Err(self.failure(Fault::NotTaken { what, wait: None }));
                    }
                    tries += 1;
                    info!("tool {}: {}; again in {:.1} s", self.entry.name, self.desk.shown(&what), wait.as_secs_f64());
                    std::thread::sleep(wait);
                }
                Fault::SessionLost if !was_revived => {
                    was_revived = true;
                    self.revive()?;
                }
                Fault::Lost(what) if tool.is_repeatable && !was_revived => {
                    was_revived = true;
                    info!("tool {}: {}; this tool may be called again", self.entry.name, self.desk.shown(&what));
                    if self.has_ended() {
                        self.revive()?;
                    }
                }
                // The server knows other headers for it than we do.
                Fault::Rpc { error, .. } if error.code == mcp::HEADER_MISMATCH && !was_revived => {
                    was_revived = true;
                    let fault = Fault::Rpc { status: 400, error };
                    let tools = self.list().map_err(|_| self.failure(fault))?;
                    self.offer(tools);
                }
                fault => return Err(self.failure(fault)),
            }
        }
    }

    fn exchange_call(&mut self, tool: &Tool, arguments: &Map<String, Value>, wanted: &Wanted) -> Result<Value, Fault> {
        self.was_called = true;
        let id = self.requests + 1;
        let current = self.tools.iter().find(|other| other.name == tool.name).unwrap_or(tool);
        let mut headers = self.headers("tools/call", Some(&tool.name));
        if let (Era::Modern, Ok(mirrored)) = (self.era, &current.mirrored) {
            headers.extend(mcp::mirrored_headers(mirrored, arguments));
        }
        let params = mcp::call_params(id, &tool.name, arguments, wanted);
        let result = self.exchange_with(&headers, "tools/call", params, self.entry.timeout);
        if let Err(Fault::Silent) = &result {
            self.cancel(id);
        }
        result
    }

    /// Tells the server that nobody waits any more. Over HTTP the modern protocol says that by hanging up.
    fn cancel(&mut self, id: u64) {
        if self.era == Era::Legacy || matches!(self.transport, Transport::Stdio(_)) {
            let params = json!({"requestId": id, "reason": "no answer in time"});
            self.tell(&mcp::notification("notifications/cancelled", params));
        }
    }

    /// A result as the model sees it.
    fn told(&self, text: &str, is_error: bool) -> Result<String, ToolError> {
        let text = self.desk.secrets.mask(text);
        let text = excerpt(&text, self.entry.output_bytes_max, "");
        match is_error {
            true if text.trim().is_empty() => {
                Err(ToolError::Failed("the tool says that it failed, and not why".to_owned()))
            }
            true => Err(ToolError::Failed(text)),
            false if text.is_empty() => Ok("[no content]".to_owned()),
            false => Ok(text),
        }
    }

    /// Why a call has no result, for the model.
    fn failure(&self, fault: Fault) -> ToolError {
        let what = format!("{}: {}", self.entry.name, fault.of_call(self.entry.timeout));
        ToolError::Failed(self.masked(&what))
    }

    /// What went wrong at the beginning, for the person.
    fn sentence(&self, fault: &Fault) -> String {
        let asked = Asked { server: &self.options.server, method: self.asked, silence: self.begin_silence() };
        match (fault, &self.transport) {
            // It ended, and says so itself.
            (Fault::SessionLost | Fault::Lost(_), Transport::Stdio(stdio)) => {
                stdio.end().unwrap_or_default().to_owned()
            }
            _ => self.masked(&fault.of_beginning(&asked)),
        }
    }

    fn masked(&self, text: &str) -> String {
        beginning(&self.desk.secrets.mask(text), MESSAGE_BYTES_MAX).to_owned()
    }

    fn begin_silence(&self) -> Duration {
        BEGIN_SILENCE_MAX.min(self.entry.timeout)
    }

    fn tell_initialize(&mut self) {
        if let Transport::Stdio(stdio) = &mut self.transport {
            self.era = Era::Legacy;
            self.requests += 1;
            let params = mcp::initialize_params(!self.desk.roots.is_empty());
            self.begun = Instant::now();
            stdio.tell(&mcp::request(Era::Legacy, self.requests, "initialize", params));
        }
    }

    /// The answer of a child to the last request.
    fn answer_stdio(&mut self, patience: Patience) -> Result<Value, Fault> {
        match &mut self.transport {
            Transport::Stdio(stdio) => stdio.answer(self.requests, &mut self.desk, patience),
            Transport::Http(_) => Err(Fault::Silent),
        }
    }

    fn headers(&self, method: &str, name: Option<&str>) -> Vec<(String, String)> {
        if self.era == Era::Modern { mcp::headers(method, name) } else { Vec::new() }
    }

    fn exchange(&mut self, method: &'static str, params: Value, silence: Duration) -> Result<Value, Fault> {
        self.exchange_with(&self.headers(method, None), method, params, silence)
    }

    fn exchange_with(
        &mut self,
        headers: &[(String, String)],
        method: &'static str,
        params: Value,
        silence: Duration,
    ) -> Result<Value, Fault> {
        self.asked = method;
        self.requests += 1;
        let body = mcp::request(self.era, self.requests, method, params);
        let patience = Patience::new(silence);
        match &mut self.transport {
            Transport::Stdio(stdio) => {
                stdio.tell(&body);
                stdio.answer(self.requests, &mut self.desk, patience)
            }
            Transport::Http(http) => {
                let opens_session = method == "initialize";
                let out = Outgoing { id: self.requests, opens_session, body: &body, headers };
                http.ask(&out, &mut self.desk, patience)
            }
        }
    }

    fn tell(&mut self, message: &[u8]) {
        match &mut self.transport {
            Transport::Stdio(stdio) => stdio.tell(message),
            Transport::Http(http) => http.tell(message),
        }
    }
}

fn is_legacy(version: &str) -> bool {
    mcp::LEGACY.contains(&version)
}

fn unknown_version(theirs: &str) -> String {
    format!("the server speaks MCP {theirs}, and this runtime {} and {}", mcp::MODERN, mcp::LEGACY.join(", "))
}
