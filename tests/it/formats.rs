//! Every provider from outside: where the question goes, what it holds, and what becomes of each kind of answer.
//!
//! A [`Door`] is one way to a provider: its configuration, its key, the URL that must be asked. Most tests hold for all of
//! them and run once for each, at the same time, in a thread that bears the door's name. What only one provider has, stands
//! in `vendors.rs`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chat;
use crate::dialects::{Answer, Delivery, Dialect, Ending, FAULT_WORDS, Trouble};
use crate::runtime::{API_KEY, Ended, Runtime};
use crate::server::{Exchange, Request, ScriptedServer};

const CACHE_MARK: &str = ",\"cache_control\":{\"type\":\"ephemeral\"}";

/// One way to a provider.
struct Door {
    name: &'static str,
    dialect: Dialect,
    /// The fields of the model's configuration besides its name and endpoint.
    fields: Value,
    /// The path of the endpoint.
    base: &'static str,
    /// Where a streamed answer is asked for, and a whole one.
    urls: [String; 2],
    /// The variable that holds the key.
    key_variable: &'static str,
    /// The header that carries the key, and what stands before the key in it.
    key_header: (&'static str, &'static str),
    environment: &'static [(&'static str, &'static str)],
}

const BEARER: (&str, &str) = ("authorization", "Bearer ");

fn doors() -> Vec<Door> {
    let openai = |name, fields| Door::new(name, Dialect::Chat, fields).key("OPENAI_API_KEY", BEARER);
    let azure = |name, fields| Door::new(name, Dialect::Chat, fields).key("AZURE_OPENAI_API_KEY", ("api-key", ""));
    let anthropic = |name| Door::new(name, Dialect::Anthropic, json!({"provider": "anthropic"}));
    let vertex = |name| Door::new(name, Dialect::Gemini, json!({"provider": "vertex"}));
    let deployments = "/openai/deployments/m-1/chat/completions?api-version=2024-10-21";
    let location = "/v1/projects/p-1/locations/europe-west4/publishers/google";
    vec![
        openai("openai responses", json!({"provider": "openai", "api": "responses"})).responses("/v1", "/v1/responses"),
        openai("openai chat", json!({"provider": "openai"})).url("/v1", "/v1/chat/completions"),
        openai("openai-compatible", json!({"provider": "openai-compatible"})).url("/v1", "/v1/chat/completions"),
        azure("azure classic", json!({"provider": "azure-openai", "api_version": "2024-10-21"})).url("", deployments),
        azure("azure v1", json!({"provider": "azure-openai"})).url("", "/openai/v1/chat/completions"),
        azure("azure v1 responses by token", json!({"provider": "azure-openai", "api": "responses"}))
            .responses("/openai/v1", "/openai/v1/responses")
            .key("AZURE_OPENAI_AD_TOKEN", BEARER),
        azure("azure classic responses", json!({"provider": "azure", "api": "responses", "api_version": "preview"}))
            .responses("", "/openai/responses?api-version=preview"),
        anthropic("anthropic").url("", "/v1/messages").key("ANTHROPIC_API_KEY", ("x-api-key", "")),
        anthropic("anthropic by token").url("/v1", "/v1/messages").key("ANTHROPIC_AUTH_TOKEN", BEARER),
        Door::new("gemini", Dialect::Gemini, json!({"provider": "gemini"}))
            .generates("/v1beta")
            .key("GEMINI_API_KEY", ("x-goog-api-key", "")),
        vertex("vertex by token")
            .generates(location)
            .key("GOOGLE_OAUTH_ACCESS_TOKEN", BEARER)
            .env(&[("GOOGLE_CLOUD_PROJECT", "p-1"), ("GOOGLE_CLOUD_LOCATION", "europe-west4")]),
        vertex("vertex express").generates("/v1beta1/publishers/google").key("GOOGLE_API_KEY", ("x-goog-api-key", "")),
        Door::new("mistral", Dialect::Mistral, json!({"provider": "mistral"}))
            .url("", "/v1/chat/completions")
            .key("MISTRAL_API_KEY", BEARER),
        Door::new("ollama", Dialect::Ollama, json!({"provider": "ollama"}))
            .url("", "/api/chat")
            .key("OLLAMA_API_KEY", BEARER),
    ]
}

impl Door {
    fn new(name: &'static str, dialect: Dialect, fields: Value) -> Door {
        let urls = [String::new(), String::new()];
        Door { name, dialect, fields, base: "", urls, key_variable: "", key_header: BEARER, environment: &[] }
    }

    fn key(self, key_variable: &'static str, key_header: (&'static str, &'static str)) -> Door {
        Door { key_variable, key_header, ..self }
    }

    fn env(self, environment: &'static [(&'static str, &'static str)]) -> Door {
        Door { environment, ..self }
    }

    fn url(self, base: &'static str, url: &str) -> Door {
        Door { base, urls: [url.to_owned(), url.to_owned()], ..self }
    }

    fn responses(self, base: &'static str, url: &str) -> Door {
        Door { dialect: Dialect::Responses, ..self }.url(base, url)
    }

    fn generates(self, place: &str) -> Door {
        let urls = ["streamGenerateContent?alt=sse", "generateContent"];
        Door { urls: urls.map(|method| format!("{place}/models/m-1:{method}")), ..self }
    }

    /// A run with two files to read, and a key in the environment.
    fn plays(&self, delivery: Delivery, exchanges: impl IntoIterator<Item = Exchange>) -> Runtime {
        let first = (self.dialect == Dialect::Ollama).then(shows_model);
        let runtime = Runtime::new()
            .env("THOUGHTMESH_EXIT_CODES", "detailed")
            .env(self.key_variable, API_KEY)
            .tools_named(&["read_file"])
            .file("a.txt", "the content of a")
            .file("b.txt", "the content of b")
            .plays(first.into_iter().chain(exchanges));
        let runtime = self.environment.iter().fold(runtime, |runtime, (name, value)| runtime.env(name, value));
        runtime
            .model_config(|url| {
                let mut fields = self.fields.clone();
                fields["name"] = json!("m-1");
                fields["endpoint"] = json!(format!("{url}{}", self.base));
                fields
            })
            .model_with(json!({"stream": delivery == Delivery::Streamed}))
    }

    fn asked_url(&self, delivery: Delivery) -> &str {
        &self.urls[usize::from(delivery == Delivery::Whole)]
    }

    /// Two calls in one turn, then the verdict.
    fn works(&self, delivery: Delivery) -> Ended {
        let answers = [two_calls(), verdict()].map(|answer| self.dialect.answer(delivery, &answer));
        self.plays(delivery, answers).run()
    }

    /// What this exchange does is got over: the next answer ends the run well, in one turn.
    fn gets_over(&self, first: Exchange) -> Ended {
        let ended = self.plays(Delivery::Streamed, [first, self.dialect.answer(Delivery::Streamed, &verdict())]).run();
        ended.exits(0).reason("finished").counts("turns", 1).counts("llmCallsUsed", 1);
        ended
    }

    #[track_caller]
    fn ends_with(&self, trouble: Trouble, reason: &str, code: i32) -> Ended {
        let ended = self.plays(Delivery::Streamed, [self.dialect.trouble(trouble).for_ever()]).run();
        ended.exits(code).status("failed").reason(reason);
        ended.tells(FAULT_WORDS);
        ended
    }
}

/// What Ollama tells of a model when it is asked.
pub fn shows_model() -> Exchange {
    Exchange::json(
        200,
        &json!({
            "parameters": "", "capabilities": ["completion", "tools"],
            "model_info": {"general.architecture": "llama", "llama.context_length": 32768},
        }),
    )
    .when(|request| match request.path.as_str() {
        "/api/show" => Ok(()),
        path => Err(format!("{path} is not /api/show")),
    })
}

/// The questions among the requests.
pub fn questions(ended: &Ended) -> Vec<&Request> {
    let is_question =
        |request: &&Request| !request.path.contains("/api/show") && !request.path.contains("/computeMetadata/");
    ended.requests.iter().filter(is_question).collect()
}

pub fn two_calls() -> Answer {
    Answer {
        text: "I read both, é and 漢.",
        calls: vec![
            ("aB3dE5gH1", "read_file", json!({"path": "a.txt"})),
            ("aB3dE5gH2", "read_file", json!({"path": "b.txt"})),
        ],
        ending: Ending::Ordinary,
    }
}

pub fn verdict() -> Answer {
    Answer { text: "", calls: vec![("aB3dE5gH3", "finish", chat::achieved_arguments(0))], ending: Ending::Ordinary }
}

/// Runs a test for every door.
#[track_caller]
fn at_each_door(test: impl Fn(&Door) + Sync) {
    each_of(doors(), test);
}

fn each_of(doors: Vec<Door>, test: impl Fn(&Door) + Sync) {
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let test = &test;
        let start = |door| std::thread::Builder::new().name(door_name(door)).spawn_scoped(scope, move || test(door));
        let running: Vec<_> = doors.iter().map(|door| (door.name, start(door).unwrap())).collect();
        running.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "fails for {}; each says above why", failed.join(", "));
}

fn door_name(door: &Door) -> String {
    door.name.to_owned()
}

// What goes well.

#[test]
fn two_calls_in_a_streamed_turn_are_run_and_answered() {
    at_each_door(|door| reads_both(&door.works(Delivery::Streamed)));
}

#[test]
fn two_calls_in_a_turn_that_comes_whole_are_run_and_answered() {
    at_each_door(|door| reads_both(&door.works(Delivery::Whole)));
}

#[track_caller]
fn reads_both(ended: &Ended) {
    ended.exits(0).reason("finished").counts("turns", 2).counts("toolCalls", 2);
    let last = String::from_utf8_lossy(&ended.last_request().body).into_owned();
    let (first, second) = (last.find("the content of a"), last.find("the content of b"));
    ended.check(first.is_some() && first < second, "the results are not both there, in the order of the calls");
}

#[test]
fn a_server_that_answers_whole_where_a_stream_was_asked_for_is_understood() {
    at_each_door(|door| {
        let answers = [two_calls(), verdict()].map(|answer| door.dialect.answer(Delivery::Whole, &answer));
        reads_both(&door.plays(Delivery::Streamed, answers).run());
    });
}

#[test]
fn a_stream_that_arrives_byte_by_byte_is_understood() {
    at_each_door(|door| {
        let answers =
            [two_calls(), verdict()].map(|answer| door.dialect.answer(Delivery::Streamed, &answer).one_by_one());
        reads_both(&door.plays(Delivery::Streamed, answers).run());
    });
}

#[test]
fn each_door_has_its_url() {
    at_each_door(|door| {
        for delivery in [Delivery::Streamed, Delivery::Whole] {
            let ended = door.works(delivery);
            for request in questions(&ended) {
                ended.check(request.method == "POST" && request.path == door.asked_url(delivery), "the URL");
            }
        }
    });
}

#[test]
fn a_stream_is_asked_for_only_where_it_is_wanted() {
    at_each_door(|door| {
        for delivery in [Delivery::Streamed, Delivery::Whole] {
            let ended = door.works(delivery);
            let stream = questions(&ended)[0].json()["stream"].clone();
            let expected = match (door.dialect, delivery) {
                // The URL says it.
                (Dialect::Gemini, _) => Value::Null,
                // Left out it would be true.
                (Dialect::Ollama, Delivery::Whole) => json!(false),
                (_, Delivery::Whole) => Value::Null,
                (_, Delivery::Streamed) => json!(true),
            };
            let is_same = stream == expected || (delivery == Delivery::Whole && stream == json!(false));
            ended.check(is_same, &format!("stream is {stream}"));
        }
    });
}

#[test]
fn the_key_is_in_its_header_and_nowhere_else() {
    at_each_door(|door| {
        let ended = door.works(Delivery::Streamed);
        let (name, start) = door.key_header;
        for request in &ended.requests {
            let expected = format!("{start}{API_KEY}");
            ended.check(request.header(name) == Some(&expected), &format!("{name} does not hold the key"));
            let places = request.text().matches(API_KEY).count();
            ended.check(places == 1, &format!("the key is sent {places} times"));
        }
    });
}

#[test]
fn the_key_is_not_in_the_log_at_its_finest() {
    at_each_door(|door| {
        let answers = [two_calls(), verdict()].map(|answer| door.dialect.answer(Delivery::Streamed, &answer));
        // The harness looks for it in everything that comes out.
        door.plays(Delivery::Streamed, answers).env("RUST_LOG", "trace").run().exits(0);
    });
}

#[test]
fn a_key_of_the_configuration_wins_over_the_environment() {
    at_each_door(|door| {
        let answer = door.dialect.answer(Delivery::Streamed, &verdict());
        let runtime = door.plays(Delivery::Streamed, [answer]).env(door.key_variable, "marker-51b0e2");
        let ended = runtime.model_with(json!({"api_key": API_KEY})).run();
        ended.exits(0).check(questions(&ended)[0].text().contains(API_KEY), "the key");
    });
}

#[test]
fn only_anthropic_gets_a_version_header() {
    at_each_door(|door| {
        let ended = door.works(Delivery::Streamed);
        let expected = (door.dialect == Dialect::Anthropic).then_some("2023-06-01");
        ended.check(questions(&ended)[0].header("anthropic-version") == expected, "anthropic-version");
    });
}

#[test]
fn headers_of_the_configuration_are_sent() {
    at_each_door(|door| {
        let answer = door.dialect.answer(Delivery::Streamed, &verdict());
        let ended = door.plays(Delivery::Streamed, [answer]).model_with(json!({"headers": {"X-Team": "doors"}})).run();
        ended.exits(0).check(ended.requests.iter().all(|request| request.header("x-team") == Some("doors")), "X-Team");
    });
}

#[test]
fn a_header_of_the_configuration_replaces_the_key() {
    at_each_door(|door| {
        let answer = door.dialect.answer(Delivery::Streamed, &verdict());
        let headers = json!({"headers": {door.key_header.0: "marker-51b0e2"}});
        let ended = door.plays(Delivery::Streamed, [answer]).model_with(headers).run();
        let request = questions(&ended)[0];
        let sent: Vec<_> = request.headers.iter().filter(|(name, _)| name == door.key_header.0).collect();
        ended.exits(0).check(sent.len() == 1 && sent[0].1 == "marker-51b0e2", "the header");
    });
}

#[test]
fn thinking_goes_back_as_it_came() {
    at_each_door(|door| {
        for delivery in [Delivery::Streamed, Delivery::Whole] {
            let ended = door.works(delivery);
            let (place, expected) = door.dialect.sent_back(&two_calls());
            let body = ended.last_request().json();
            let found = body.pointer(place).cloned().unwrap_or_default();
            // As text, because bytes are what a provider's cache compares; the fields of Chat have an order of our own.
            let text = [&found, &expected].map(|value| value.to_string().replace(CACHE_MARK, ""));
            let is_same = text[0] == text[1] || (door.dialect == Dialect::Chat && found == expected);
            ended.check(is_same, &format!("{place} is {found}, not {expected}"));
        }
    });
}

#[test]
fn a_request_begins_with_the_bytes_of_the_one_before() {
    at_each_door(|door| {
        let answers = [two_calls(), unmet_verdict(), verdict()];
        let answers = answers.map(|answer| door.dialect.answer(Delivery::Streamed, &answer));
        let ended = door.plays(Delivery::Streamed, answers).model_with(json!({"temperature": "0.2"})).run();
        let bodies: Vec<String> = questions(&ended)
            .iter()
            .map(|request| String::from_utf8_lossy(&request.body).replace(CACHE_MARK, ""))
            .collect();
        ended.check(bodies.len() == 3, "three questions expected");
        for pair in bodies.windows(2) {
            // All but the brackets that close the first.
            let start = &pair[0][..pair[0].len() - 2];
            ended.check(pair[1].starts_with(start), "the beginning changed");
        }
    });
}

/// A claim that is rejected.
fn unmet_verdict() -> Answer {
    Answer { calls: vec![("aB3dE5gH4", "finish", json!({"status": "achieved"}))], ..verdict() }
}

#[test]
fn tokens_are_counted_in_one_meaning() {
    at_each_door(|door| {
        for delivery in [Delivery::Streamed, Delivery::Whole] {
            let ended = door.works(delivery);
            let expected = json!({
                "inputTokens": 2 * chat::INPUT_TOKENS, "outputTokens": 2 * chat::OUTPUT_TOKENS,
                "cachedInputTokens": 2 * door.dialect.cached_tokens(),
            });
            ended.check(ended.outcome()["usage"] == expected, "the usage");
        }
    });
}

// What may pass.

#[test]
fn a_refused_temperature_is_left_out_from_then_on_with_one_warning() {
    at_each_door(|door| {
        let answers = [two_calls(), verdict()].map(|answer| door.dialect.answer(Delivery::Streamed, &answer));
        let script = std::iter::once(door.dialect.trouble(Trouble::TemperatureRefused)).chain(answers);
        let ended = door.plays(Delivery::Streamed, script).model_with(json!({"temperature": "0.2"})).run();
        reads_both(&ended);
        let sent: Vec<bool> =
            questions(&ended).iter().map(|request| request.text().contains("\"temperature\":0.2")).collect();
        ended.check(sent == [true, false, false], &format!("it was sent: {sent:?}"));
        let warnings = ended.stderr.lines().filter(|line| line.contains("WARN") && line.contains("temperature"));
        ended.check(warnings.count() == 1, "one warning expected");
    });
}

#[test]
fn a_rate_limit_is_waited_for_as_long_as_the_server_says() {
    at_each_door(|door| {
        let ended = door.gets_over(door.dialect.trouble(Trouble::RateLimited));
        let asked = questions(&ended);
        let wait = asked[1].arrived - asked[0].arrived;
        ended.check((Duration::from_secs(1)..Duration::from_secs(20)).contains(&wait), &format!("{wait:?}"));
    });
}

#[test]
fn a_stream_that_ends_before_its_end_mark_is_no_answer() {
    at_each_door(|door| {
        let pieces = door.dialect.pieces(&verdict());
        door.gets_over(door.dialect.streamed(pieces.body)).log_has("try 1");
    });
}

#[test]
fn a_connection_that_ends_before_the_end_mark_of_a_stream_is_no_answer() {
    at_each_door(|door| {
        let pieces = door.dialect.pieces(&verdict());
        door.gets_over(door.dialect.streamed(pieces.body).until_close()).log_has("try 1");
    });
}

#[test]
fn an_error_in_the_middle_of_a_stream_is_tried_again() {
    at_each_door(|door| {
        let mut pieces = door.dialect.pieces(&verdict()).body;
        pieces.push(door.dialect.overloaded_piece());
        door.gets_over(door.dialect.streamed(pieces)).log_has("try 1");
    });
}

#[test]
fn a_streamed_answer_leaves_its_connection_to_the_next_question() {
    at_each_door(|door| {
        let ended = door.works(Delivery::Streamed);
        let asked = questions(&ended);
        ended.check(asked[0].connection == asked[1].connection, "a second connection was opened");
    });
}

#[test]
fn a_stream_whose_end_mark_came_is_an_answer_though_its_body_never_ends() {
    // The end mark of Gemini's is the end of the body.
    let doors = doors().into_iter().filter(|door| !matches!(door.dialect, Dialect::Gemini)).collect();
    each_of(doors, |door| {
        let endless = [two_calls(), verdict()]
            .map(|answer| door.dialect.answer(Delivery::Streamed, &answer).stalls(crate::server::Point::BeforeEnd));
        door.plays(Delivery::Streamed, endless).run().exits(0).counts("turns", 2);
    });
}

#[test]
fn a_stream_that_falls_silent_is_tried_again() {
    at_each_door(|door| {
        let silent = door.dialect.answer(Delivery::Streamed, &verdict()).stalls(crate::server::Point::InBody);
        let answer = door.dialect.answer(Delivery::Streamed, &verdict());
        let runtime = door.plays(Delivery::Streamed, [silent, answer]).model_with(json!({"timeout_seconds": 1}));
        runtime.run().exits(0).counts("turns", 1).log_has("silent");
    });
}

// What does not pass.

#[test]
fn a_refused_key_ends_the_run_and_names_its_variable() {
    at_each_door(|door| {
        door.ends_with(Trouble::KeyRefused, "credentials_refused", 77).tells(door.key_variable);
    });
}

#[test]
fn a_refused_key_of_the_configuration_names_the_configuration() {
    at_each_door(|door| {
        let fault = door.dialect.trouble(Trouble::KeyRefused);
        let runtime = door.plays(Delivery::Streamed, [fault]).unset(door.key_variable);
        let ended = runtime.model_with(json!({"api_key": API_KEY})).run();
        ended.exits(77).reason("credentials_refused").tells("THOUGHTMESH_MODEL_CONFIG: api_key");
    });
}

#[test]
fn a_key_that_may_not_ends_the_run_and_names_its_variable() {
    at_each_door(|door| {
        door.ends_with(Trouble::Forbidden, "credentials_refused", 77).tells(door.key_variable);
    });
}

#[test]
fn a_quota_that_is_used_up_ends_the_run_and_names_the_variable_of_the_key() {
    at_each_door(|door| {
        door.ends_with(Trouble::QuotaUsedUp, "credentials_refused", 77).tells(door.key_variable);
    });
}

#[test]
fn an_unknown_model_ends_the_run_and_names_the_configuration() {
    at_each_door(|door| {
        let ended = door.ends_with(Trouble::UnknownModel, "model_unavailable", 69);
        ended.tells("THOUGHTMESH_MODEL_CONFIG").tells("m-1");
    });
}

#[test]
fn a_context_that_is_too_long_and_cannot_be_shortened_ends_the_run() {
    at_each_door(|door| {
        door.ends_with(Trouble::ContextTooLong, "context_exhausted", 1);
    });
}

#[test]
fn two_refusals_end_the_run() {
    // Ollama's models have no word for it.
    let doors = doors().into_iter().filter(|door| door.dialect != Dialect::Ollama).collect();
    each_of(doors, |door| {
        for delivery in [Delivery::Streamed, Delivery::Whole] {
            let refusal = Answer { text: "I will not.", calls: Vec::new(), ending: Ending::Refused };
            let refusals = [refusal.clone(), refusal].map(|answer| door.dialect.answer(delivery, &answer));
            door.plays(delivery, refusals).run().exits(1).status("failed").reason("refused");
        }
    });
}

#[test]
fn calls_of_a_turn_that_was_cut_off_are_not_run() {
    at_each_door(|door| {
        let cut = Answer { ending: Ending::TokenLimit, ..two_calls() };
        let answers = [cut, verdict()].map(|answer| door.dialect.answer(Delivery::Streamed, &answer));
        let ended = door.plays(Delivery::Streamed, answers).run();
        ended.exits(0).counts("toolCalls", 0);
    });
}

#[test]
fn a_redirect_is_not_followed_with_a_key() {
    at_each_door(|door| {
        let elsewhere = ScriptedServer::plays([]);
        let redirect = Exchange::new(307, "text/plain", "").header("Location", &format!("{}/x", elsewhere.url()));
        let ended = door.plays(Delivery::Streamed, [redirect]).run();
        ended.exits(69).reason("model_unavailable").tells("307").tells("endpoint");
        assert!(elsewhere.script().requests().is_empty());
    });
}
