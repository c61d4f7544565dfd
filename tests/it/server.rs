//! A loopback HTTP server, std only, that plays a script: one [`Exchange`] per request, in order.
//!
//! It speaks HTTP/1.1 with keep-alive and knows nothing of models; `chat.rs` makes its answers. It can also misbehave in the
//! ways that real servers and networks do. A script that was not played to its end, or a request that it does not hold, is
//! a problem that fails the test: [`Script::problems`]. What may surprise: an unexpected request is answered 404, because
//! that ends a run at once.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest that a test waits for a request to arrive.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The number of the connection that it came on, from 0.
    pub connection: usize,
    pub arrived: Instant,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body; `null` when it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Line, headers and body, for searching and for printing.
    pub fn text(&self) -> String {
        let headers: Vec<String> = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {} (connection {})\n{}\n{body}", self.method, self.path, self.connection, headers.concat())
    }
}

type Expectation = Arc<dyn Fn(&Request) -> Result<(), String> + Send + Sync>;

/// Makes the answer from the request.
type Answer = Arc<dyn Fn(&Request) -> Exchange + Send + Sync>;

/// What one request must be, and what it is answered.
#[derive(Clone)]
pub struct Exchange {
    /// Makes the answer from the request, in place of all that follows.
    answer: Option<Answer>,
    expectation: Option<Expectation>,
    repeats: bool,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    body_times: usize,
    framing: Framing,
    delivery: Delivery,
    afterwards: Afterwards,
}

/// How the end of the body is told.
#[derive(Clone, Copy)]
enum Framing {
    Length,
    Chunked {
        chunk_bytes: usize,
    },
    UntilClose,
    /// The body is all that is sent: no status line, no headers.
    Raw,
}

#[derive(Clone, Copy, PartialEq)]
enum Delivery {
    Whole,
    OneByOne,
    HangUp(Point),
    Stall(Point),
}

/// How far an answer comes before it goes wrong.
#[derive(Clone, Copy, PartialEq)]
pub enum Point {
    Start,
    InHeaders,
    InBody,
    /// All is there but the chunk that ends the body.
    BeforeEnd,
}

#[derive(Clone, Copy, PartialEq)]
enum Afterwards {
    KeepAlive,
    /// Closes at once, without having said so.
    Close,
    /// Closes as soon as the next request begins to arrive.
    DropNextRequest,
}

impl Exchange {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Exchange {
        Exchange {
            answer: None,
            expectation: None,
            repeats: false,
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: body.into(),
            body_times: 1,
            framing: Framing::Length,
            delivery: Delivery::Whole,
            afterwards: Afterwards::KeepAlive,
        }
    }

    pub fn json(status: u16, body: &Value) -> Exchange {
        Exchange::new(status, "application/json", body.to_string())
    }

    /// Answers every request by what it is.
    pub fn answers(answer: impl Fn(&Request) -> Exchange + Send + Sync + 'static) -> Exchange {
        Exchange { answer: Some(Arc::new(answer)), repeats: true, ..Exchange::new(200, "", "") }
    }

    /// What this one answers to a request.
    pub fn answer_to(&self, request: &Request) -> Exchange {
        self.answer.as_ref().map_or_else(|| self.clone(), |answer| answer(request))
    }

    /// The login page of a proxy that stands in the way.
    pub fn login_page() -> Exchange {
        Exchange::new(200, "text/html", "<!DOCTYPE html><html><body><form>Please log in</form></body></html>")
    }

    /// Sends these bytes in place of an HTTP answer, then hangs up.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Exchange {
        let mut exchange = Exchange::new(0, "", bytes);
        exchange.framing = Framing::Raw;
        exchange
    }

    /// A body of `times` copies of `bytes`, never held in memory.
    pub fn huge(bytes: &[u8], times: usize) -> Exchange {
        let mut exchange = Exchange::new(200, "application/json", bytes);
        exchange.body_times = times;
        exchange
    }

    pub fn header(mut self, name: &str, value: &str) -> Exchange {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the request must be; an error says what it is not.
    pub fn when(mut self, expectation: impl Fn(&Request) -> Result<(), String> + Send + Sync + 'static) -> Exchange {
        self.expectation = Some(Arc::new(expectation));
        self
    }

    /// Answers this request and every one that follows. Such an exchange counts as played however often it was.
    pub fn for_ever(mut self) -> Exchange {
        self.repeats = true;
        self
    }

    pub fn chunked(mut self, chunk_bytes: usize) -> Exchange {
        self.framing = Framing::Chunked { chunk_bytes };
        self
    }

    /// The body has no length and ends with the connection, as in HTTP/1.0.
    pub fn until_close(mut self) -> Exchange {
        self.framing = Framing::UntilClose;
        self
    }

    pub fn one_by_one(mut self) -> Exchange {
        self.delivery = Delivery::OneByOne;
        self
    }

    pub fn hangs_up(mut self, point: Point) -> Exchange {
        self.delivery = Delivery::HangUp(point);
        self
    }

    /// Sends nothing more and keeps the connection open.
    pub fn stalls(mut self, point: Point) -> Exchange {
        self.delivery = Delivery::Stall(point);
        self
    }

    pub fn then_closes(mut self) -> Exchange {
        self.afterwards = Afterwards::Close;
        self
    }

    pub fn then_drops_next_request(mut self) -> Exchange {
        self.afterwards = Afterwards::DropNextRequest;
        self
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason_phrase(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.framing {
            Framing::Length => head.push_str(&format!("Content-Length: {}\r\n", self.body.len() * self.body_times)),
            Framing::Chunked { .. } => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::UntilClose => head.push_str("Connection: close\r\n"),
            Framing::Raw => return Vec::new(),
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn framed_body(&self) -> Vec<u8> {
        let Framing::Chunked { chunk_bytes } = self.framing else { return self.body.clone() };
        let mut framed = Vec::new();
        for chunk in self.body.chunks(chunk_bytes) {
            framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
        }
        framed.extend_from_slice(b"0\r\n\r\n");
        framed
    }

    /// Sends the answer; says whether the connection can carry another request.
    pub fn play(&self, connection: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
        let (head, body) = (self.head(), self.framed_body());
        let stream = connection.get_mut();
        match self.delivery {
            Delivery::Whole => {
                stream.write_all(&head)?;
                for _ in 0..self.body_times {
                    stream.write_all(&body)?;
                }
            }
            Delivery::OneByOne => {
                stream.set_nodelay(true)?;
                for byte in head.iter().chain(&body) {
                    stream.write_all(std::slice::from_ref(byte))?;
                }
            }
            Delivery::HangUp(point) | Delivery::Stall(point) => {
                let whole = [head.as_slice(), body.as_slice()].concat();
                let end = match point {
                    Point::Start => 0,
                    Point::InHeaders => head.len() / 2,
                    Point::InBody => head.len() + body.len() / 2,
                    Point::BeforeEnd => whole.len() - b"0\r\n\r\n".len(),
                };
                stream.write_all(&whole[..end])?;
                stream.flush()?;
                if let Delivery::Stall(_) = self.delivery {
                    std::io::copy(connection, &mut std::io::sink())?;
                }
                return Ok(false);
            }
        }
        connection.get_mut().flush()?;
        if let Afterwards::DropNextRequest = self.afterwards {
            connection.fill_buf()?;
        }
        let ends = matches!(self.framing, Framing::UntilClose | Framing::Raw);
        Ok(!ends && self.afterwards == Afterwards::KeepAlive)
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}

/// The exchanges to come, the requests that came, and what went wrong.
pub struct Script {
    state: Mutex<State>,
    /// For what the exchanges do not hold.
    answer: Option<Answer>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ahead: VecDeque<Arc<Exchange>>,
    requests: Vec<Request>,
    problems: Vec<String>,
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
    is_over: bool,
}

impl Script {
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Forgets the requests that came.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// Adds exchanges behind those that are left.
    pub fn goes_on(&self, exchanges: impl IntoIterator<Item = Exchange>) {
        self.state().ahead.extend(exchanges.into_iter().map(Arc::new));
    }

    /// What the server saw that its script did not say, and what of the script was not played.
    pub fn problems(&self) -> Vec<String> {
        let state = self.state();
        let left = state.ahead.iter().filter(|exchange| !exchange.repeats).count();
        let mut problems = state.problems.clone();
        if left > 0 {
            problems.push(format!("{left} exchanges of the script were not played"));
        }
        problems
    }

    /// Waits until `count` requests have arrived.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) {
        let (state, timeout) = self
            .changed
            .wait_timeout_while(self.state(), ARRIVAL_TIMEOUT, |state| state.requests.len() < count)
            .unwrap();
        let arrived = state.requests.len();
        // A panic that holds the lock would poison it for the server's end, whose panic would abort all tests.
        drop(state);
        assert!(!timeout.timed_out(), "{arrived} of {count} requests arrived in {ARRIVAL_TIMEOUT:?}");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn next(&self, request: Request) -> Arc<Exchange> {
        let mut state = self.state();
        let number = state.requests.len() + 1;
        let exchange = match state.ahead.front() {
            Some(exchange) if exchange.repeats => exchange.clone(),
            Some(_) => state.ahead.pop_front().unwrap(),
            None if self.answer.is_some() => Arc::new((self.answer.as_ref().unwrap())(&request)),
            None => {
                let problem = format!("request {number} was not expected: {} {}", request.method, request.path);
                state.problems.push(problem);
                Arc::new(Exchange::new(404, "text/plain", "the script is over"))
            }
        };
        if let Some(Err(problem)) = exchange.expectation.as_ref().map(|expectation| expectation(&request)) {
            state.problems.push(format!("request {number}: {problem}"));
        }
        let exchange = Arc::new(exchange.answer_to(&request));
        state.requests.push(request);
        self.changed.notify_all();
        exchange
    }
}

/// The server; it ends when it is dropped, and fails the test if its script has a problem.
pub struct ScriptedServer {
    address: SocketAddr,
    script: Arc<Script>,
    listening: Option<JoinHandle<()>>,
}

impl ScriptedServer {
    pub fn plays(exchanges: impl IntoIterator<Item = Exchange>) -> ScriptedServer {
        Self::new(exchanges.into_iter().map(Arc::new).collect(), None)
    }

    /// A server whose answers follow from the requests, in whatever order they come.
    pub fn answers(answer: impl Fn(&Request) -> Exchange + Send + Sync + 'static) -> ScriptedServer {
        Self::new(VecDeque::new(), Some(Arc::new(answer)))
    }

    fn new(ahead: VecDeque<Arc<Exchange>>, answer: Option<Answer>) -> ScriptedServer {
        let state = State { ahead, ..State::default() };
        let script = Arc::new(Script { state: Mutex::new(state), answer, changed: Condvar::new() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listening = std::thread::spawn({
            let script = script.clone();
            move || listen(&listener, &script)
        });
        ScriptedServer { address, script, listening: Some(listening) }
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn script(&self) -> &Arc<Script> {
        &self.script
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.script.state().is_over = true;
        // A connection of our own wakes the listener, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
        let (streams, threads) = {
            let mut state = self.script.state();
            (std::mem::take(&mut state.streams), std::mem::take(&mut state.threads))
        };
        for stream in streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in threads {
            let _ = thread.join();
        }
        let problems = self.script.problems();
        if !std::thread::panicking() {
            assert!(problems.is_empty(), "the scripted server: {}", problems.join("; "));
        }
    }
}

fn listen(listener: &TcpListener, script: &Arc<Script>) {
    for (number, stream) in listener.incoming().enumerate() {
        let mut state = script.state();
        if state.is_over {
            return;
        }
        let stream = stream.unwrap();
        state.streams.push(stream.try_clone().unwrap());
        let script = script.clone();
        state.threads.push(std::thread::spawn(move || serve(stream, number, &script)));
    }
}

/// Serves one connection to its end. Errors are the peer's: it went away, which the script's problems show if it matters.
fn serve(stream: TcpStream, number: usize, script: &Script) {
    // Head and body are written apart; the second would wait 40 ms for the first to be confirmed.
    let _ = stream.set_nodelay(true);
    let mut connection = BufReader::new(stream);
    while let Some(request) = read_request(&mut connection, number) {
        let is_last = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let exchange = script.next(request);
        if !exchange.play(&mut connection).unwrap_or(false) || is_last {
            break;
        }
    }
    // The clone that the script keeps would hold the connection open.
    let _ = connection.get_ref().shutdown(Shutdown::Both);
}

pub fn read_request(connection: &mut BufReader<TcpStream>, number: usize) -> Option<Request> {
    let line = read_line(connection)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = read_line(connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: Vec::new(), connection: number, arrived: Instant::now() };
    if request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        request.body = read_chunks(connection)?;
    } else if let Some(length) = request.header("content-length") {
        request.body = vec![0; length.parse().ok()?];
        connection.read_exact(&mut request.body).ok()?;
    }
    Some(request)
}

fn read_chunks(connection: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(connection)?;
        let length = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        let start = body.len();
        body.resize(start + length, 0);
        connection.read_exact(&mut body[start..]).ok()?;
        read_line(connection)?;
        if length == 0 {
            return Some(body);
        }
    }
}

/// A line without its end; nothing when the peer is gone.
pub fn read_line(connection: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    connection.read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(&line);
    line.ends_with('\n').then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}

mod tests {
    use super::*;

    fn send(server: &ScriptedServer, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn a_script_that_was_not_played_is_a_problem() {
        let server = ScriptedServer::plays([Exchange::login_page()]);
        assert_eq!(server.script().problems(), ["1 exchanges of the script were not played"]);
        server.script().state().ahead.clear();
    }

    #[test]
    fn a_request_beyond_the_script_is_a_problem() {
        let server = ScriptedServer::plays([]);
        let answer = send(&server, "GET /more HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert_eq!(server.script().problems(), ["request 1 was not expected: GET /more"]);
        server.script().state().problems.clear();
    }

    #[test]
    fn an_expectation_that_is_not_met_is_a_problem() {
        let exchange = Exchange::raw("x").when(|request| match request.path.as_str() {
            "/right" => Ok(()),
            path => Err(format!("{path} is not /right")),
        });
        let server = ScriptedServer::plays([exchange]);
        assert_eq!(send(&server, "GET /wrong HTTP/1.1\r\n\r\n"), "x");
        assert_eq!(server.script().problems(), ["request 1: /wrong is not /right"]);
        server.script().state().problems.clear();
    }

    #[test]
    fn a_request_with_a_chunked_body_is_read_whole() {
        let server = ScriptedServer::plays([Exchange::raw("x")]);
        send(&server, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n");
        assert_eq!(server.script().requests()[0].json(), serde_json::json!([1, 2]));
    }
}
