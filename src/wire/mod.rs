//! Other people's formats. Pure: values in, values out; no I/O, no clock, and no knowledge of where a format is spoken.
//!
//! Each file offers the same three functions, `begin`, `decode` and `explain`; `Messages`, which go behind what `begin` gives,
//! one after the other; and a `Stream` that puts the pieces of a streamed answer together and decodes the whole like any
//! other. Here is one match for each of them. The files share nothing with each other, because providers drift apart.

mod anthropic;
mod gemini;
pub mod mcp;
mod mistral;
pub mod ollama;
mod openai;
mod responses;
pub mod sse;

use core::time::Duration;
use std::fmt;
use std::rc::Rc;

use serde_json::{Map, Value};

use self::sse::Event;
use crate::conversation::{Conversation, Message, ToolSpec, Tools, Turn};

/// Which JSON a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WireFormat {
    /// OpenAI Chat Completions and everything that is compatible with it.
    OpenAi,
    /// OpenAI Responses.
    Responses,
    /// Chat Completions as Mistral speaks it.
    Mistral,
    /// Ollama's own API.
    Ollama,
    /// Anthropic Messages.
    Anthropic,
    /// Google's generateContent: the Gemini API and Vertex AI.
    Gemini,
}

/// What goes into a request besides the conversation and the tools.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Deserialize), serde(default))]
pub struct Options {
    /// The provider's name of the model.
    pub model: String,
    /// Further parameters under the provider's names, sent as they are, in the place where the format has them.
    pub parameters: Map<String, Value>,
    /// Ask for the answer in pieces.
    pub stream: bool,
}

/// What a provider said when it did not answer.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct ApiFault {
    pub kind: FaultKind,
    /// The provider's words, at most [`MESSAGE_CHARS_MAX`] characters.
    pub message: String,
    /// The parameter that it refuses, where it names one apart from the message.
    pub parameter: Option<String>,
    /// How long the provider wants us to wait, where its body says so; most say it in a header.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    pub retry_after: Option<Duration>,
}

/// What follows from an [`ApiFault`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum FaultKind {
    /// Too many requests for now.
    RateLimited,
    /// The server cannot answer now; asking again may help.
    Unavailable,
    /// The key is missing or refused.
    Unauthorized,
    /// The model or the URL is unknown.
    NotFound,
    /// Nothing is left to spend; asking again does not help.
    QuotaExhausted,
    /// The conversation does not fit the model.
    ContextTooLong,
    /// The prompt was refused by a filter.
    Refused,
    /// Anything else in the request; asking again does not help.
    BadRequest,
}

/// Characters of a provider's words that are kept.
pub const MESSAGE_CHARS_MAX: usize = 500;

/// Why a body that came under a good status is no turn.
#[derive(Clone, Debug, PartialEq)]
pub enum DecodeError {
    /// It is not what the format promises.
    Unreadable {
        /// Where, as `choices[0].message`; empty for the whole body.
        path: String,
        expected: &'static str,
        /// The beginning of what was there.
        excerpt: String,
    },
    /// It is an error of the provider's, under the wrong status.
    Answered(ApiFault),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Unreadable { path, expected, excerpt } => {
                let place = if path.is_empty() { "the answer" } else { path };
                write!(formatter, "{place}: expected {expected}, found: {excerpt}")
            }
            DecodeError::Answered(fault) => write!(formatter, "an error under a good status: {}", fault.message),
        }
    }
}

impl std::error::Error for DecodeError {}

/// How a streamed answer is cut into events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    /// text/event-stream.
    Sse,
    /// One JSON value a line; each line is the data of an event without a name.
    Lines,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    More,
    /// The format's own end mark has come; what follows is not read.
    Whole,
}

/// A streamed answer that is being put together.
#[derive(Debug)]
pub enum Stream {
    OpenAi(openai::Stream),
    Responses(responses::Stream),
    Mistral(mistral::Stream),
    Ollama(ollama::Stream),
    Anthropic(anthropic::Stream),
    Gemini(gemini::Stream),
}

impl Stream {
    /// Takes the next event.
    pub fn push(&mut self, event: &Event) -> Result<Progress, DecodeError> {
        match self {
            Stream::OpenAi(stream) => stream.push(event),
            Stream::Responses(stream) => stream.push(event),
            Stream::Mistral(stream) => stream.push(event),
            Stream::Ollama(stream) => stream.push(event),
            Stream::Anthropic(stream) => stream.push(event),
            Stream::Gemini(stream) => stream.push(event),
        }
    }

    /// The turn, once the format's end mark has come or the connection was closed. A stream that ended before its end mark
    /// is an error: it never counts as a complete answer.
    pub fn finish(self) -> Result<Turn, DecodeError> {
        match self {
            Stream::OpenAi(stream) => stream.finish(),
            Stream::Responses(stream) => stream.finish(),
            Stream::Mistral(stream) => stream.finish(),
            Stream::Ollama(stream) => stream.finish(),
            Stream::Anthropic(stream) => stream.finish(),
            Stream::Gemini(stream) => stream.finish(),
        }
    }
}

impl WireFormat {
    /// A new stream, and how its bytes are cut.
    pub fn stream(self) -> (Framing, Stream) {
        match self {
            WireFormat::OpenAi => (Framing::Sse, Stream::OpenAi(openai::Stream::default())),
            WireFormat::Responses => (Framing::Sse, Stream::Responses(responses::Stream::default())),
            WireFormat::Mistral => (Framing::Sse, Stream::Mistral(mistral::Stream::default())),
            WireFormat::Ollama => (Framing::Lines, Stream::Ollama(ollama::Stream::default())),
            WireFormat::Anthropic => (Framing::Sse, Stream::Anthropic(anthropic::Stream::default())),
            WireFormat::Gemini => (Framing::Sse, Stream::Gemini(gemini::Stream::default())),
        }
    }

    /// A request before anything was said: JSON that ends with an empty list.
    fn begin(self, system: &str, tools: &[ToolSpec], options: &Options) -> (Vec<u8>, Messages) {
        match self {
            WireFormat::OpenAi => (openai::begin(system, tools, options), Messages::OpenAi(Default::default())),
            WireFormat::Responses => {
                (responses::begin(system, tools, options), Messages::Responses(Default::default()))
            }
            WireFormat::Mistral => (mistral::begin(system, tools, options), Messages::Mistral(Default::default())),
            WireFormat::Ollama => (ollama::begin(system, tools, options), Messages::Ollama(Default::default())),
            WireFormat::Anthropic => {
                (anthropic::begin(system, tools, options), Messages::Anthropic(Default::default()))
            }
            WireFormat::Gemini => (gemini::begin(system, tools, options), Messages::Gemini(Default::default())),
        }
    }

    /// The turn in the body of an answer. Where the provider counted no tokens, `usage.is_estimate` is set and its numbers
    /// are 0.
    pub fn decode(self, body: &[u8]) -> Result<Turn, DecodeError> {
        match self {
            WireFormat::OpenAi => openai::decode(body),
            WireFormat::Responses => responses::decode(body),
            WireFormat::Mistral => mistral::decode(body),
            WireFormat::Ollama => ollama::decode(body),
            WireFormat::Anthropic => anthropic::decode(body),
            WireFormat::Gemini => gemini::decode(body),
        }
    }

    /// What a status other than 2xx and its body mean.
    pub fn explain(self, status: u16, body: &[u8]) -> ApiFault {
        match self {
            WireFormat::OpenAi => openai::explain(status, body),
            WireFormat::Responses => responses::explain(status, body),
            WireFormat::Mistral => mistral::explain(status, body),
            WireFormat::Ollama => ollama::explain(status, body),
            WireFormat::Anthropic => anthropic::explain(status, body),
            WireFormat::Gemini => gemini::explain(status, body),
        }
    }
}

/// The list at the end of a request, as far as it is written.
pub struct List<'a>(&'a mut Vec<u8>);

impl List<'_> {
    fn push(&mut self, item: &Value) {
        if self.0.last() != Some(&b'[') {
            self.0.push(b',');
        }
        serde_json::to_writer(&mut *self.0, item).expect("JSON values serialize");
    }

    fn extend(&mut self, items: impl IntoIterator<Item = Value>) {
        items.into_iter().for_each(|item| self.push(&item));
    }
}

/// What was said, on its way into a request.
#[derive(Debug)]
enum Messages {
    OpenAi(openai::Messages),
    Responses(responses::Messages),
    Mistral(mistral::Messages),
    Ollama(ollama::Messages),
    Anthropic(anthropic::Messages),
    Gemini(gemini::Messages),
}

impl Messages {
    /// Writes the next message, or keeps it until it is known what follows it.
    fn push(&mut self, message: &Message, list: &mut List<'_>) {
        match self {
            Messages::OpenAi(messages) => messages.push(message, list),
            Messages::Responses(messages) => messages.push(message, list),
            Messages::Mistral(messages) => messages.push(message, list),
            Messages::Ollama(messages) => messages.push(message, list),
            Messages::Anthropic(messages) => messages.push(message, list),
            Messages::Gemini(messages) => messages.push(message, list),
        }
    }

    /// Writes what is kept, as it stands when nothing follows.
    fn finish(&self, list: &mut List<'_>) {
        match self {
            Messages::OpenAi(messages) => messages.finish(list),
            Messages::Responses(messages) => messages.finish(list),
            Messages::Mistral(messages) => messages.finish(list),
            Messages::Ollama(messages) => messages.finish(list),
            Messages::Anthropic(messages) => messages.finish(list),
            Messages::Gemini(messages) => messages.finish(list),
        }
    }
}

/// The body of a request, which grows with its conversation: only what is new is encoded. It is the same as if it had been
/// encoded whole, because all that it was made from is kept here and compared. Of messages and tools the places in memory
/// are enough, because neither changes while it is kept.
#[derive(Debug)]
pub struct Request {
    format: WireFormat,
    system: String,
    tools: Tools,
    options: Options,
    messages: Vec<Rc<Message>>,
    encoded: Messages,
    body: Vec<u8>,
    /// Bytes of the body that stay as they are when something is said.
    kept: usize,
}

impl Request {
    pub fn new(format: WireFormat) -> Request {
        Request::begin(format, "", &Tools::default(), &Options::default())
    }

    fn begin(format: WireFormat, system: &str, tools: &Tools, options: &Options) -> Request {
        let (body, encoded) = format.begin(system, tools, options);
        let kept = body.strip_suffix(b"]}").map_or(0, <[u8]>::len);
        let (system, tools, options) = (system.to_owned(), tools.clone(), options.clone());
        Request { format, system, tools, options, messages: Vec::new(), encoded, body, kept }
    }

    /// Makes it that of this conversation: JSON, its beginning the same from turn to turn.
    pub fn encode(&mut self, conversation: &Conversation, tools: &Tools, options: &Options) {
        let Conversation { system, messages } = conversation;
        let is_same = self.system == *system && Rc::ptr_eq(&self.tools, tools) && self.options == *options;
        let known = messages.get(..self.messages.len()).unwrap_or_default();
        let goes_on = known.len() == self.messages.len()
            && known.iter().zip(&self.messages).all(|(given, own)| Rc::ptr_eq(given, own));
        if !is_same || !goes_on {
            *self = Request::begin(self.format, system, tools, options);
        }
        self.body.truncate(self.kept);
        let mut list = List(&mut self.body);
        for message in messages.get(self.messages.len()..).unwrap_or_default() {
            self.encoded.push(message, &mut list);
            self.messages.push(message.clone());
        }
        self.kept = list.0.len();
        self.encoded.finish(&mut list);
        self.body.extend_from_slice(b"]}");
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Cuts bytes into events, as they come.
#[derive(Debug)]
pub enum Parser {
    Sse(sse::Parser),
    Lines(Vec<u8>),
}

impl Parser {
    pub fn new(framing: Framing) -> Parser {
        match framing {
            Framing::Sse => Parser::Sse(sse::Parser::default()),
            Framing::Lines => Parser::Lines(Vec::new()),
        }
    }

    /// The events that these bytes complete, in order.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, sse::TooLarge> {
        let rest = match self {
            Parser::Sse(parser) => return parser.push(bytes),
            Parser::Lines(rest) => rest,
        };
        rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let data = String::from_utf8_lossy(&line).trim().to_owned();
            if !data.is_empty() {
                events.push(Event { data, ..Event::default() });
            }
        }
        if rest.len() > sse::EVENT_BYTES_MAX { Err(sse::TooLarge) } else { Ok(events) }
    }
}

/// The tokens that the model can hold, where the words of a [`FaultKind::ContextTooLong`] tell. The texts are those of the
/// golden files `error_context*`, and of TGI and SGLang (LiteLLM 1.109's tests, read 2026-11).
pub fn context_window_in(message: &str) -> Option<u64> {
    const BEFORE: [&str; 14] = [
        "maximum context length is ",
        "maximum context length of ",
        "context length (",
        "context length of ",
        "context size (",
        "context size of ",
        "context window of ",
        "its context of ",
        "number of tokens allowed (",
        "only supports up to ",
        "configured limit of ",
        "must be <= ",
        "too large for model with ",
        "\"n_ctx\": ",
    ];
    let message = message.to_ascii_lowercase();
    let after = |words: &str| message.split_once(words).map(|(_, rest)| rest);
    // Anthropic's: `201548 tokens > 200000 maximum`, `190000 + 16384 > 200000`.
    let compared = || {
        after("prompt is too long").or_else(|| after("exceed context limit"))?.split_once("> ").map(|(_, rest)| rest)
    };
    let found = BEFORE.iter().find_map(|words| number_at(after(words)?));
    found.or_else(|| number_at(compared()?))
}

/// The number that a text begins with, thousands set apart or not. No model holds fewer tokens than a few hundred.
fn number_at(text: &str) -> Option<u64> {
    let digits: String =
        text.chars().take_while(|c| c.is_ascii_digit() || ",_".contains(*c)).filter(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|tokens| *tokens >= 256)
}

/// The first characters of a text, on one line, with a mark where it was cut. For messages that a person reads.
pub fn excerpt(text: &str, chars_max: usize) -> String {
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars_max).collect();
    if text.chars().nth(chars_max).is_some() {
        short.push('…');
    }
    short
}

/// A body as JSON. Half of a surrogate pair, which models make when they are cut in the middle of an emoji, is no JSON text
/// for serde_json; it becomes U+FFFD, as do bytes that are not UTF-8.
pub fn parse_json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().or_else(|| {
        let text = String::from_utf8_lossy(body);
        serde_json::from_str(&without_lone_surrogates(&text)).ok()
    })
}

fn without_lone_surrogates(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('\\') {
        let (before, escape) = rest.split_at(place);
        whole.push_str(before);
        let unit = |text: &str| text.strip_prefix("\\u").and_then(|text| u16::from_str_radix(text.get(..4)?, 16).ok());
        let length = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                whole.push_str("\\ufffd");
                rest = escape.get(6..).unwrap_or_default();
                continue;
            }
            // A backslash and what it escapes, so that an escaped backslash does not begin another escape.
            _ => 1 + escape.chars().nth(1).map_or(0, char::len_utf8),
        };
        let (kept, after) = escape.split_at(length);
        whole.push_str(kept);
        rest = after;
    }
    whole.push_str(rest);
    whole
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::testing;

    impl WireFormat {
        /// The body of a request that is encoded whole.
        fn encode(self, conversation: &Conversation, tools: &[ToolSpec], options: &Options) -> Vec<u8> {
            let mut request = Request::new(self);
            request.encode(conversation, &Rc::new(tools.to_vec()), options);
            request.body().to_vec()
        }
    }

    /// A case's input: what is said, what is offered, and the options.
    #[derive(serde::Deserialize)]
    struct Input {
        #[serde(flatten)]
        conversation: Conversation,
        #[serde(default)]
        tools: Vec<ToolSpec>,
        #[serde(default)]
        options: Options,
    }

    #[test]
    fn each_providers_words_tell_the_window() {
        let golden = |case: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case).join("fault.json");
            let fault: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            context_window_in(fault["message"].as_str().unwrap())
        };
        for (case, window) in [
            ("anthropic/error_context", Some(200_000)),
            ("anthropic/error_context_and_max_tokens", Some(200_000)),
            ("gemini/error_context", Some(1_048_576)),
            ("gemini/error_context_vertex", Some(1_048_576)),
            ("mistral/error_context", Some(32_768)),
            ("ollama/error_context_llama_server", Some(8192)),
            ("ollama/error_context_mlx", Some(8192)),
            ("ollama/error_context_runner", None),
            ("ollama/error_context_server", None),
            ("openai/error_context_openai", Some(8192)),
            ("openai/error_context_vllm", Some(4096)),
            ("openai/error_context_llama_cpp", None),
            ("responses/error_context", None),
            ("responses/error_context_words", Some(272_000)),
        ] {
            assert_eq!(golden(case), window, "{case}");
        }
        for (words, window) in [
            ("the server has cut the prompt to its context of 4096 tokens", Some(4096)),
            ("`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 2000 and 100", Some(2048)),
            ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", Some(4096)),
            ("This model's maximum context length is 128,000 tokens", Some(128_000)),
            ("prompt too long; exceeded max context length by 57 tokens", None),
            ("context length (0 tokens)", None),
            ("", None),
        ] {
            assert_eq!(context_window_in(words), window, "{words}");
        }
    }

    fn format_of(folder: &str) -> WireFormat {
        match folder {
            "openai" => WireFormat::OpenAi,
            "responses" => WireFormat::Responses,
            "mistral" => WireFormat::Mistral,
            "ollama" => WireFormat::Ollama,
            "anthropic" => WireFormat::Anthropic,
            "gemini" => WireFormat::Gemini,
            other => panic!("tests/golden/{other} belongs to no format"),
        }
    }

    fn outcome_of_decode(format: WireFormat, body: &[u8]) -> Value {
        match format.decode(body) {
            Ok(turn) => serde_json::to_value(turn).unwrap(),
            Err(DecodeError::Answered(fault)) => json!({"fault": fault}),
            Err(unreadable) => json!({"unreadable": unreadable.to_string()}),
        }
    }

    fn outcome_of_stream(format: WireFormat, bytes: &[u8], piece_bytes: usize) -> Value {
        match run_stream(format, bytes, piece_bytes) {
            Ok(turn) => serde_json::to_value(turn).unwrap(),
            Err(DecodeError::Answered(fault)) => json!({"fault": fault}),
            Err(unreadable) => json!({"unreadable": unreadable.to_string()}),
        }
    }

    fn run_stream(format: WireFormat, bytes: &[u8], piece_bytes: usize) -> Result<Turn, DecodeError> {
        let (framing, mut stream) = format.stream();
        let mut parser = Parser::new(framing);
        for piece in bytes.chunks(piece_bytes) {
            for event in parser.push(piece).unwrap() {
                if stream.push(&event)? == Progress::Whole {
                    return stream.finish();
                }
            }
        }
        stream.finish()
    }

    fn check_case(format: WireFormat, case: &Path) {
        let read = |name: &str| fs::read(case.join(name)).ok();
        if let Some(input) = read("conversation.json") {
            let input: Input = serde_json::from_slice(&input).unwrap();
            let body = format.encode(&input.conversation, &input.tools, &input.options);
            let request: Value = serde_json::from_slice(&body).unwrap();
            testing::compare_golden(&case.join("request.json"), &request);
        }
        if let Some(body) = read("response.json") {
            testing::compare_golden(&case.join("turn.json"), &outcome_of_decode(format, &body));
        }
        if let Some(bytes) = read("stream.txt") {
            let turn = outcome_of_stream(format, &bytes, bytes.len());
            testing::compare_golden(&case.join("turn.json"), &turn);
            for length in [1, 7] {
                assert_eq!(outcome_of_stream(format, &bytes, length), turn, "{} in pieces of {length}", case.display());
            }
        }
        if let Some(error) = read("error.json") {
            let error: Value = serde_json::from_slice(&error).unwrap();
            let status = u16::try_from(error["status"].as_u64().unwrap()).unwrap();
            let body = error["body"].as_str().map_or_else(|| error["body"].to_string(), str::to_owned);
            let fault = format.explain(status, body.as_bytes());
            testing::compare_golden(&case.join("fault.json"), &serde_json::to_value(fault).unwrap());
        }
    }

    #[test]
    fn golden_files_agree() {
        for (format, case) in testing::golden_cases() {
            check_case(format_of(&format), &case);
        }
    }

    /// Bodies and streams from outside, with the name of the file that each came from.
    fn golden_bytes() -> Vec<(WireFormat, &'static str, Vec<u8>)> {
        let mut files = Vec::new();
        for (format, case) in testing::golden_cases() {
            for name in ["response.json", "stream.txt", "error.json"] {
                let Ok(bytes) = fs::read(case.join(name)) else { continue };
                let error: Option<Value> = serde_json::from_slice(&bytes).ok().filter(|_| name == "error.json");
                let bytes = error.map_or(bytes, |error| error["body"].to_string().into_bytes());
                files.push((format_of(&format), name, bytes));
            }
        }
        files
    }

    fn mutated(bytes: &[u8], random: &mut testing::Random) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=random.below(4) {
            let place = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(place.max(1)),
                1 => bytes[place] = u8::try_from(random.below(256)).unwrap(),
                // Still JSON, most of the time: another kind of value where one was expected.
                2 => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let from = random.pick(&["[", "{}", "null", "\"type\"", "0", "\"text\"", "[{"]);
                    let to = random.pick(&["null", "[]", "{}", "1e300", "\"\"", "[[", "-1", "\"ü\""]);
                    let nth = random.below(8);
                    if let Some((place, _)) = text.match_indices(from).nth(nth) {
                        bytes = [&text[..place], to, &text[place + from.len()..]].concat().into_bytes();
                    }
                }
                _ => drop(bytes.remove(place)),
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        bytes
    }

    #[test]
    fn mutated_answers_never_panic() {
        use crate::conversation::ToolResult;
        let files = golden_bytes();
        testing::check_property(4000, |random| {
            let (format, name, bytes) = &files[random.below(files.len())];
            let bytes = mutated(bytes, random);
            let turn = if *name == "stream.txt" { run_stream(*format, &bytes, 16) } else { format.decode(&bytes) };
            let _ = format.explain(400, &bytes);
            // What was read can be sent back.
            let Ok(turn) = turn else { return };
            let results: Vec<Rc<Message>> = turn
                .tool_calls()
                .map(|call| ToolResult { call_id: call.id.clone(), text: String::new(), is_error: true })
                .map(|result| Message::ToolResult(result).into())
                .collect();
            let conversation = Conversation {
                system: String::new(),
                messages: std::iter::once(Message::Assistant { parts: turn.parts }.into()).chain(results).collect(),
            };
            let body = format.encode(&conversation, &[], &Options::default());
            assert!(serde_json::from_slice::<Value>(&body).is_ok());
        });
    }

    /// The turn as the next request holds it.
    fn sent_back(format: WireFormat, body: &[u8], pointer: &str) -> Value {
        let parts = format.decode(body).unwrap().parts;
        let user = Rc::new(Message::User { text: "?".to_owned() });
        let messages = vec![user.clone(), Message::Assistant { parts }.into(), user];
        let conversation = Conversation { system: "s".to_owned(), messages };
        let request = format.encode(&conversation, &[], &Options::default());
        serde_json::from_slice::<Value>(&request).unwrap().pointer(pointer).cloned().unwrap_or_default()
    }

    #[test]
    fn a_turn_goes_back_as_it_came() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let read = |path: &str| fs::read(root.join(path).join("response.json")).unwrap();
        for case in ["one_tool_call", "several_tool_calls", "reasoning_sent_back", "text_with_citations", "pause_turn"]
        {
            let body = read(&format!("anthropic/{case}"));
            let came: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(sent_back(WireFormat::Anthropic, &body, "/messages/1/content"), came["content"], "{case}");
        }
        for case in
            ["one_tool_call", "several_tool_calls", "reasoning_sent_back", "signature_on_empty_text", "call_ids"]
        {
            let body = read(&format!("gemini/{case}"));
            let came: Value = serde_json::from_slice(&body).unwrap();
            let content = sent_back(WireFormat::Gemini, &body, "/contents/1");
            assert_eq!(content["parts"], came["candidates"][0]["content"]["parts"], "{case}");
        }
    }

    const FORMATS: [WireFormat; 6] = [
        WireFormat::OpenAi,
        WireFormat::Responses,
        WireFormat::Anthropic,
        WireFormat::Gemini,
        WireFormat::Mistral,
        WireFormat::Ollama,
    ];

    /// What can be said next; some turns have nothing to send, some ids are no provider's.
    fn any_message(random: &mut testing::Random, number: usize) -> Message {
        use crate::conversation::{Part, ToolCall, ToolResult};
        let id = |random: &mut testing::Random| random.pick(&["a", "call_1", "abcdefghi", "é", ""]).to_owned();
        let text = random.pick(&["", " ", "text", "\"quoted\"\n"]).to_owned();
        match random.below(5) {
            0 => Message::User { text },
            1 | 2 => Message::ToolResult(ToolResult { call_id: id(random), text, is_error: random.below(2) == 0 }),
            _ => {
                let opaque = [
                    json!({"type": "thinking", "thinking": text, "signature": number}),
                    json!({"type": "refusal"}),
                    json!({"reasoning_content": text}),
                    json!({"functionCall": {"id": number, "name": "t"}}),
                ];
                let parts = (0..random.below(4)).map(|_| match random.below(3) {
                    0 => Part::Text { text: text.clone() },
                    1 => Part::Opaque { value: opaque[random.below(4)].clone() },
                    _ => Part::ToolCall(ToolCall {
                        id: id(random),
                        name: "t".to_owned(),
                        arguments: json!({"a": number}),
                    }),
                });
                Message::Assistant { parts: parts.collect() }
            }
        }
    }

    #[test]
    fn a_request_that_grew_is_the_one_that_is_encoded_whole() {
        use crate::conversation::Edit;
        testing::check_property(300, |random| {
            let format = random.pick(&FORMATS);
            let mut conversation = Conversation { system: "s".to_owned(), messages: Vec::new() };
            let (mut tools, mut options) = (Tools::default(), Options::default());
            let mut request = Request::new(format);
            for number in 0..random.below(30) {
                let text = "shorter".to_owned();
                match random.below(12) {
                    0 => conversation.edit(&[Edit::Shorten { message: random.below(number + 1), text }]),
                    1 => conversation.edit(&[Edit::Replace { end: random.below(number + 1), text }]),
                    2 => drop(options.parameters.insert(random.pick(&["p", "max_tokens"]).to_string(), json!(number))),
                    3 => drop(options.parameters.shift_remove("p")),
                    4 => {
                        let parameters = json!({"type": "object"});
                        let spec = ToolSpec { name: number.to_string(), description: "d".to_owned(), parameters };
                        Rc::make_mut(&mut tools).push(spec);
                    }
                    5 => conversation.system.push('s'),
                    6 => conversation.messages.truncate(random.below(number + 1)),
                    _ => conversation.messages.push(any_message(random, number).into()),
                }
                if random.below(3) > 0 {
                    request.encode(&conversation, &tools, &options);
                    let whole = format.encode(&conversation, &tools, &options);
                    assert_eq!(String::from_utf8_lossy(request.body()), String::from_utf8_lossy(&whole), "{format:?}");
                }
            }
        });
    }

    #[test]
    fn a_request_begins_with_the_one_before() {
        use crate::conversation::{Part, ToolCall, ToolResult};
        // Anthropic's marks move to the new end of the request; they are no part of what is cached.
        const MARK: &str = ",\"cache_control\":{\"type\":\"ephemeral\"}";
        let tools =
            [ToolSpec { name: "t".to_owned(), description: "d".to_owned(), parameters: json!({"type": "object"}) }];
        let parameters = json!({"temperature": 0.2}).as_object().cloned().unwrap();
        let options = Options { model: "m".to_owned(), parameters, stream: true };
        for format in FORMATS {
            let first = Message::User { text: "objective".to_owned() };
            let mut conversation = Conversation { system: "s".to_owned(), messages: vec![first.into()] };
            let encoded = |conversation: &Conversation| {
                String::from_utf8(format.encode(conversation, &tools, &options)).unwrap().replace(MARK, "")
            };
            for turn in 0..3 {
                let first = encoded(&conversation);
                let call =
                    ToolCall { id: turn.to_string(), name: "t".to_owned(), arguments: json!("{\"b\": 1, \"a\": 2}") };
                conversation.messages.push(Message::Assistant { parts: vec![Part::ToolCall(call)] }.into());
                let result = ToolResult { call_id: turn.to_string(), text: "r".to_owned(), is_error: false };
                conversation.messages.push(Message::ToolResult(result).into());
                let second = encoded(&conversation);
                // All but the brackets that close the first.
                assert!(second.starts_with(&first[..first.len() - 2]), "{format:?}:\n{first}\n{second}");
            }
        }
    }
}
