//! What only one provider has: its own variables, tokens, pauses, contexts and sentences. What all have in common stands in
//! `formats.rs`.

use serde_json::{Value, json};

use crate::chat;
use crate::dialects::{Answer, Delivery, Dialect, Ending};
use crate::formats::{questions, shows_model, two_calls, verdict};
use crate::runtime::{API_KEY, Ended, Runtime};
use crate::server::{Exchange, ScriptedServer};

fn answer(dialect: Dialect, answer: &Answer) -> Exchange {
    dialect.answer(Delivery::Streamed, answer)
}

/// A run that ends well in one turn, with a model made from the server's URL.
fn one_turn(dialect: Dialect, config: impl Fn(&str) -> Value) -> Runtime {
    let first = (dialect == Dialect::Ollama).then(shows_model);
    Runtime::new().plays(first.into_iter().chain([answer(dialect, &verdict())])).model_config(config)
}

/// What `--check` says would be asked. Asks nothing.
fn checked_url(config: Value, environment: &[(&str, &str)]) -> String {
    let runtime = Runtime::new().arg("--check").env("THOUGHTMESH_MODEL_CONFIG", &config.to_string());
    let ended = environment.iter().fold(runtime, |runtime, (name, value)| runtime.env(name, value)).run();
    ended.exits(0);
    let line = ended.stdout.lines().find_map(|line| line.strip_prefix("model: ")).unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

// Default endpoints, which no test can reach.

#[test]
fn each_provider_has_its_own_endpoint() {
    for (provider, url) in [
        ("openai", "https://api.openai.com/v1/responses"),
        ("anthropic", "https://api.anthropic.com/v1/messages"),
        ("mistral", "https://api.mistral.ai/v1/chat/completions"),
        ("ollama", "http://127.0.0.1:11434/api/chat"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/models/m-1:streamGenerateContent?alt=sse"),
        ("google", "https://generativelanguage.googleapis.com/v1beta/models/m-1:streamGenerateContent?alt=sse"),
    ] {
        assert_eq!(checked_url(json!({"provider": provider, "name": "m-1", "api_key": API_KEY}), &[]), url);
    }
}

#[test]
fn openai_itself_speaks_chat_where_that_is_asked_for() {
    let config = json!({"provider": "openai", "name": "m-1", "api_key": API_KEY, "api": "chat"});
    assert_eq!(checked_url(config, &[]), "https://api.openai.com/v1/chat/completions");
}

#[test]
fn each_location_of_vertex_has_its_own_host() {
    for (location, host) in [
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
    ] {
        let config =
            json!({"provider": "vertex", "name": "m-1", "project": "p-1", "location": location, "stream": false});
        let place = format!("projects/p-1/locations/{location}/publishers/google/models/m-1:generateContent");
        assert_eq!(checked_url(config, &[]), format!("https://{host}/v1/{place}"));
    }
}

#[test]
fn vertex_without_a_location_is_global() {
    let url = checked_url(json!({"provider": "vertex", "name": "m-1"}), &[("GOOGLE_CLOUD_PROJECT", "p-1")]);
    assert!(url.starts_with("https://aiplatform.googleapis.com/v1/projects/p-1/locations/global/"), "{url}");
}

#[test]
fn a_project_in_the_environment_counts_more_than_a_key_there() {
    let environment = [("GOOGLE_CLOUD_PROJECT", "p-1"), ("GOOGLE_API_KEY", API_KEY)];
    let url = checked_url(json!({"provider": "vertex", "name": "m-1"}), &environment);
    assert!(url.contains("/projects/p-1/"), "{url}");
}

// Variables that hold a base URL.

#[track_caller]
fn reads_base_url(variable: &str, dialect: Dialect, config: Value, base: &str, path: &str) {
    let first = (dialect == Dialect::Ollama).then(shows_model);
    let server = ScriptedServer::plays(first.into_iter().chain([answer(dialect, &verdict())]));
    let runtime = Runtime::new().model(&server).env(variable, &format!("{}{base}", server.url()));
    let ended = runtime.model_config(|_| config.clone()).run();
    ended.exits(0).check(questions(&ended)[0].path == path, "the path");
}

#[test]
fn anthropic_base_url_is_read() {
    let config = json!({"provider": "anthropic", "name": "m-1", "api_key": API_KEY});
    reads_base_url("ANTHROPIC_BASE_URL", Dialect::Anthropic, config, "/gateway", "/gateway/v1/messages");
}

#[test]
fn azure_openai_endpoint_is_read() {
    let config = json!({"provider": "azure-openai", "name": "m-1", "api_key": API_KEY});
    reads_base_url("AZURE_OPENAI_ENDPOINT", Dialect::Chat, config, "/", "/openai/v1/chat/completions");
}

#[test]
fn google_gemini_base_url_is_read() {
    let config = json!({"provider": "gemini", "name": "m-1", "api_key": API_KEY, "stream": true});
    let path = "/v1beta/models/m-1:streamGenerateContent?alt=sse";
    reads_base_url("GOOGLE_GEMINI_BASE_URL", Dialect::Gemini, config, "", path);
}

#[test]
fn google_vertex_base_url_is_read() {
    let config = json!({"provider": "vertex", "name": "m-1", "api_key": API_KEY});
    let path = "/v1beta1/publishers/google/models/m-1:streamGenerateContent?alt=sse";
    reads_base_url("GOOGLE_VERTEX_BASE_URL", Dialect::Gemini, config, "", path);
}

#[test]
fn ollama_host_is_read_without_a_scheme() {
    let server = ScriptedServer::plays([shows_model(), answer(Dialect::Ollama, &verdict())]);
    let host = server.url().trim_start_matches("http://").to_owned();
    let runtime = Runtime::new().model(&server).env("OLLAMA_HOST", &host);
    runtime.model_config(|_| json!({"provider": "ollama", "name": "m-1"})).run().exits(0);
}

#[test]
fn openai_compatible_servers_are_found_by_openai_base_url() {
    let config = json!({"provider": "openai-compatible", "name": "m-1"});
    reads_base_url("OPENAI_BASE_URL", Dialect::Chat, config, "/v1", "/v1/chat/completions");
}

// OpenAI and Azure.

#[test]
fn organization_and_project_of_openai_are_sent() {
    let config = |url: &str| json!({"provider": "openai", "name": "m-1", "endpoint": url, "api_key": API_KEY});
    let runtime = one_turn(Dialect::Chat, config).env("OPENAI_ORG_ID", "org-1").env("OPENAI_PROJECT_ID", "proj-1");
    let ended = runtime.run();
    let headers =
        ["openai-organization", "openai-project"].map(|name| ended.request(1).header(name).unwrap_or_default());
    ended.exits(0).check(headers == ["org-1", "proj-1"], "the headers");
}

#[test]
fn organization_and_project_are_not_sent_to_other_servers() {
    let config = |url: &str| json!({"provider": "openai-compatible", "name": "m-1", "endpoint": url});
    let ended = one_turn(Dialect::Chat, config).env("OPENAI_ORG_ID", "org-1").run();
    ended.exits(0).check(ended.request(1).header("openai-organization").is_none(), "the header");
}

#[test]
fn responses_are_not_stored() {
    let config = |url: &str| json!({"provider": "openai", "name": "m-1", "endpoint": url, "api_key": API_KEY, "api": "responses"});
    let ended = one_turn(Dialect::Responses, config).run();
    let body = ended.request(1).json();
    let asked = (&body["store"], &body["include"]);
    ended.check(asked == (&json!(false), &json!(["reasoning.encrypted_content"])), "store and include");
}

/// A server that wants the other API says so in words.
#[track_caller]
fn names_the_other_api(api: &str, status: u16, param: &str, message: &str) {
    let body = json!({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": null}});
    let ended = Runtime::new()
        .env("THOUGHTMESH_EXIT_CODES", "detailed")
        .plays([Exchange::json(status, &body)])
        .model_with(json!({"provider": "openai", "api": api}))
        .run();
    ended.exits(69).reason("model_unavailable").tells("THOUGHTMESH_MODEL_CONFIG: api").tells(message);
}

#[test]
fn a_model_that_wants_responses_is_named_as_such() {
    let message = "Function tools with reasoning_effort are not supported for m-1 in /v1/chat/completions. To use function \
                   tools, use /v1/responses or set reasoning_effort to 'none'.";
    names_the_other_api("chat", 400, "reasoning_effort", message);
}

#[test]
fn a_model_that_is_only_in_responses_is_named_as_such() {
    names_the_other_api(
        "chat",
        404,
        "model",
        "This model is only supported in v1/responses and not in v1/chat/completions.",
    );
}

#[test]
fn a_model_that_wants_chat_is_named_as_such() {
    names_the_other_api(
        "responses",
        404,
        "model",
        "This model is only supported in v1/chat/completions and not in v1/responses.",
    );
}

#[test]
fn azure_s_version_is_read_from_the_environment() {
    for variable in ["OPENAI_API_VERSION", "AZURE_OPENAI_API_VERSION"] {
        let config = |url: &str| json!({"provider": "azure", "name": "m 1/é", "endpoint": url, "api_key": API_KEY});
        let ended = one_turn(Dialect::Chat, config).env(variable, "2024-10-21").run();
        let path = "/openai/deployments/m%201%2F%C3%A9/chat/completions?api-version=2024-10-21";
        ended.exits(0).check(ended.request(1).path == path, "the path");
    }
}

#[test]
fn a_prompt_that_azure_s_filter_refuses_is_a_refused_turn() {
    let body = json!({"error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": null, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }});
    let config = |url: &str| json!({"provider": "azure-openai", "name": "m-1", "endpoint": url, "api_key": API_KEY});
    let refusal = || Exchange::json(400, &body);
    Runtime::new().plays([refusal(), refusal()]).model_config(config).run().exits(1).reason("refused");
}

// Anthropic.

fn anthropic(url: &str) -> Value {
    json!({"provider": "anthropic", "name": "m-1", "endpoint": url, "api_key": API_KEY})
}

#[test]
fn another_version_of_anthropic_s_api_can_be_chosen() {
    let headers = json!({"headers": {"Anthropic-Version": "2026-10-21", "anthropic-beta": "a,b"}});
    let ended = one_turn(Dialect::Anthropic, anthropic).model_with(headers).run();
    let request = ended.request(1);
    let versions: Vec<_> = request.headers.iter().filter(|(name, _)| name == "anthropic-version").collect();
    ended.exits(0).check(versions.len() == 1 && versions[0].1 == "2026-10-21", "the version");
    ended.check(request.header("anthropic-beta") == Some("a,b"), "the beta");
}

#[test]
fn a_limit_on_tokens_is_always_sent_to_anthropic() {
    for (fields, expected) in [
        (json!({}), 16_384),
        (json!({"max_tokens": 4096}), 4096),
        (json!({"params": {"max_tokens": "2048"}}), 2048),
        (json!({"params": {"thinking": {"type": "enabled", "budget_tokens": 20_000}}}), 36_384),
    ] {
        let ended = one_turn(Dialect::Anthropic, anthropic).model_with(fields).run();
        ended
            .exits(0)
            .check(ended.request(1).json()["max_tokens"] == expected, &format!("max_tokens is not {expected}"));
    }
}

/// A turn in which a tool ran at the provider; it waits for being sent back.
fn paused() -> Exchange {
    let content = json!([
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "doors"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [
            {"type": "web_search_result", "url": "https://example.com", "title": "Doors", "encrypted_content": "abc", "page_age": null}
        ]},
    ]);
    Exchange::json(
        200,
        &json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": "pause_turn",
            "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 5},
        }),
    )
}

#[test]
fn a_paused_turn_goes_back_as_it_came_and_nothing_with_it() {
    let ended = Runtime::new().plays([paused(), answer(Dialect::Anthropic, &verdict())]).model_config(anthropic).run();
    ended.exits(0).reason("finished");
    let messages = ended.request(2).messages();
    ended.check(messages.len() == 2, "a message was added to the paused turn");
    let kinds: Vec<&Value> = messages[1]["content"].as_array().unwrap().iter().map(|block| &block["type"]).collect();
    ended.check(kinds == ["server_tool_use", "web_search_tool_result"], "the paused turn changed");
}

#[test]
fn tools_that_run_at_anthropic_stand_before_ours() {
    let params = json!({"params": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}});
    let ended = one_turn(Dialect::Anthropic, anthropic).model_with(params).run();
    let body = ended.exits(0).request(1).json();
    let names: Vec<&Value> = body["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    ended.check(names == ["web_search", "finish"], "the tools");
}

#[test]
fn tools_in_params_are_refused_for_other_providers() {
    Runtime::new()
        .plays([])
        .model_with(json!({"params": {"tools": [{"type": "web_search"}]}}))
        .run()
        .complains_about(&["params.tools"]);
}

#[test]
fn tools_in_params_that_are_no_list_are_refused() {
    Runtime::new()
        .plays([])
        .model_config(anthropic)
        .model_with(json!({"params": {"tools": "web_search"}}))
        .run()
        .complains_about(&["params.tools"]);
}

#[test]
fn a_server_that_is_overloaded_with_529_is_asked_again() {
    let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let script = [Exchange::json(529, &overloaded), answer(Dialect::Anthropic, &verdict())];
    Runtime::new().plays(script).model_config(anthropic).run().exits(0);
}

// Gemini.

fn gemini(url: &str) -> Value {
    json!({"provider": "gemini", "name": "m-1", "endpoint": url, "api_key": API_KEY})
}

#[test]
fn google_api_key_wins_over_gemini_api_key() {
    let config = |url: &str| json!({"provider": "gemini", "name": "m-1", "endpoint": url});
    let runtime =
        one_turn(Dialect::Gemini, config).env("GEMINI_API_KEY", "marker-51b0e2").env("GOOGLE_API_KEY", API_KEY);
    let ended = runtime.run();
    ended.exits(0).check(ended.request(1).header("x-goog-api-key") == Some(API_KEY), "the key");
}

#[test]
fn the_version_of_the_gemini_api_can_be_chosen() {
    for (fields, environment) in [(json!({"api_version": "v1"}), ""), (json!({}), "v1")] {
        let runtime = one_turn(Dialect::Gemini, gemini).model_with(fields).env("GOOGLE_GENAI_API_VERSION", environment);
        let ended = runtime.run();
        ended.exits(0).check(ended.request(1).path.starts_with("/v1/models/m-1:"), "the path");
    }
}

#[test]
fn a_prompt_that_gemini_blocks_is_a_refused_turn() {
    let blocked =
        || Exchange::json(200, &json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}}));
    Runtime::new().plays([blocked(), blocked()]).model_config(gemini).run().exits(1).reason("refused");
}

#[test]
fn the_sampling_parameters_stand_where_gemini_wants_them() {
    let fields = json!({"temperature": "0.2", "max_tokens": 512, "params": {"top_p": "0.9", "top_k": "40"}});
    let ended = one_turn(Dialect::Gemini, gemini).model_with(fields).run();
    let expected = json!({"temperature": 0.2, "maxOutputTokens": 512, "topP": 0.9, "topK": 40});
    ended.exits(0).check(ended.request(1).json()["generationConfig"] == expected, "generationConfig");
}

// Vertex: tokens of the metadata server.

const TOKEN_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const PROJECT_PATH: &str = "/computeMetadata/v1/project/project-id";

/// A run whose metadata server is the model's server too.
fn on_google_cloud(script: Vec<Exchange>) -> Runtime {
    let server = ScriptedServer::plays(script);
    let host = server.url().trim_start_matches("http://").to_owned();
    let url = server.url();
    Runtime::new()
        .env("THOUGHTMESH_EXIT_CODES", "detailed")
        .env("GCE_METADATA_HOST", &host)
        .tools_named(&["read_file"])
        .file("a.txt", "a")
        .file("b.txt", "b")
        .serves(server)
        .model_config(move |_| json!({"provider": "vertex", "name": "m-1", "project": "p-1", "endpoint": url}))
}

fn gives_token(token: &str, seconds: u64) -> Exchange {
    Exchange::json(200, &json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"})).when(
        |request| match (request.method.as_str(), request.path.as_str(), request.header("metadata-flavor")) {
            ("GET", TOKEN_PATH, Some("Google")) => Ok(()),
            _ => Err("not a question for a token".to_owned()),
        },
    )
}

fn tokens(ended: &Ended) -> Vec<&str> {
    questions(ended).iter().map(|request| request.header("authorization").unwrap_or_default()).collect()
}

#[test]
fn a_token_of_the_metadata_server_is_used_while_it_is_valid() {
    let [first, second] = [two_calls(), verdict()].map(|turn| answer(Dialect::Gemini, &turn));
    let ended = on_google_cloud(vec![gives_token("ya29.first", 3599), first, second]).run();
    ended.exits(0).check(tokens(&ended) == ["Bearer ya29.first"; 2], "the tokens");
}

#[test]
fn a_token_is_renewed_before_it_expires() {
    // The metadata server gives out a token until 5 minutes before its end, so one of 3 minutes is about to be renewed.
    let [first, second] = [two_calls(), verdict()].map(|turn| answer(Dialect::Gemini, &turn));
    let script = vec![gives_token("ya29.first", 180), first, gives_token("ya29.second", 3599), second];
    let ended = on_google_cloud(script).run();
    ended.exits(0).check(tokens(&ended) == ["Bearer ya29.first", "Bearer ya29.second"], "the tokens");
}

#[test]
fn the_project_is_asked_of_the_metadata_server_where_none_is_set() {
    let project = Exchange::new(200, "application/text", "p-of-the-server").when(|request| {
        (request.path == PROJECT_PATH).then_some(()).ok_or_else(|| "not a question for the project".to_owned())
    });
    let script = vec![project, gives_token("ya29.first", 3599), answer(Dialect::Gemini, &verdict())];
    let ended = on_google_cloud(script).model_with(json!({"project": null})).run();
    let path = &questions(&ended)[0].path;
    ended.exits(0).check(path.starts_with("/v1/projects/p-of-the-server/locations/global/"), "the path");
}

#[test]
fn a_metadata_server_that_is_not_ready_is_asked_again() {
    let script = vec![
        Exchange::new(503, "text/plain", "starting"),
        gives_token("ya29.first", 3599),
        answer(Dialect::Gemini, &verdict()),
    ];
    on_google_cloud(script).run().exits(0);
}

#[test]
fn a_metadata_server_without_an_account_ends_the_run() {
    let script = vec![Exchange::new(404, "text/html", "no service account")];
    let ended = on_google_cloud(script).run();
    ended.exits(77).reason("credentials_refused").tells("GOOGLE_OAUTH_ACCESS_TOKEN").tells("metadata server");
}

#[test]
fn a_token_of_the_metadata_server_is_in_no_output() {
    let script = vec![gives_token("ya29.first", 3599), answer(Dialect::Gemini, &verdict())];
    let ended = on_google_cloud(script).env("RUST_LOG", "trace").run();
    ended.exits(0).never_says("ya29.first");
}

#[test]
fn the_metadata_server_is_asked_without_a_proxy() {
    // The model's URL, which has the same host here, goes through the proxy.
    let proxy = ScriptedServer::plays([Exchange::new(403, "text/plain", "")]);
    let ended = on_google_cloud(vec![gives_token("ya29.first", 3599)]).env("HTTP_PROXY", &proxy.url()).run();
    ended.exits(69).check(ended.request(1).path == TOKEN_PATH, "the token was not asked for");
    assert_eq!(proxy.script().requests()[0].method, "CONNECT");
}

#[test]
fn a_token_in_the_configuration_is_sent_as_one() {
    let config = |url: &str| json!({"provider": "vertex", "name": "m-1", "project": "p-1", "endpoint": url, "api_key": "ya29.x"});
    let ended = one_turn(Dialect::Gemini, config).run();
    ended.exits(0).check(ended.request(1).header("authorization") == Some("Bearer ya29.x"), "the header");
}

#[test]
fn a_key_file_of_google_is_refused_with_what_to_use_instead() {
    Runtime::new()
        .plays([])
        .model_config(|url| json!({"provider": "vertex", "name": "m-1", "project": "p-1", "endpoint": url}))
        .env("GOOGLE_APPLICATION_CREDENTIALS", "/var/key.json")
        .run()
        .complains_about(&["GOOGLE_APPLICATION_CREDENTIALS", "workload identity", "GOOGLE_OAUTH_ACCESS_TOKEN"]);
}

// Mistral.

#[test]
fn ids_that_mistral_would_refuse_are_replaced_in_both_places() {
    let mut calls = two_calls();
    calls.calls[0].0 = "call_of_another_kind";
    let script = [calls, verdict()].map(|turn| answer(Dialect::Mistral, &turn));
    let config = |url: &str| json!({"provider": "mistral", "name": "m-1", "endpoint": url, "api_key": API_KEY});
    let runtime = Runtime::new().tools_named(&["read_file"]).file("a.txt", "a").file("b.txt", "b").plays(script);
    let ended = runtime.model_config(config).run();
    let messages = ended.exits(0).request(2).messages();
    let called = messages[2]["tool_calls"][0]["id"].as_str().unwrap_or_default();
    ended.check(called.len() == 9 && called.bytes().all(|byte| byte.is_ascii_alphanumeric()), "the id of the call");
    ended.check(messages[3]["tool_call_id"] == called, "the id of the result");
}

// Ollama.

fn ollama(url: &str) -> Value {
    json!({"provider": "ollama", "name": "m-1", "endpoint": url})
}

fn shows(model: Value) -> Exchange {
    Exchange::json(200, &model)
}

#[track_caller]
fn asks_for_context(shown: Exchange, fields: Value, num_ctx: Value) {
    let script = [shown, answer(Dialect::Ollama, &verdict())];
    let ended = Runtime::new().plays(script).model_config(ollama).model_with(fields).run();
    ended
        .exits(0)
        .check(ended.request(2).json()["options"]["num_ctx"] == num_ctx, &format!("num_ctx is not {num_ctx}"));
}

#[test]
fn the_context_is_the_model_s_own() {
    asks_for_context(shows_model(), json!({}), json!(32768));
}

#[test]
fn the_context_is_bounded_where_the_model_has_a_large_one() {
    let model = json!({"model_info": {"general.architecture": "llama", "llama.context_length": 131_072}});
    asks_for_context(shows(model), json!({}), json!(65_536));
}

#[test]
fn the_context_of_the_configuration_wins() {
    asks_for_context(shows_model(), json!({"params": {"num_ctx": "8192"}}), json!(8192));
    asks_for_context(shows_model(), json!({"context_window": 16_384}), json!(16_384));
}

#[test]
fn the_context_that_the_model_s_file_sets_is_kept() {
    let model = json!({
        "parameters": "num_ctx                        12288",
        "model_info": {"general.architecture": "llama", "llama.context_length": 131_072},
    });
    asks_for_context(shows(model), json!({}), json!(12_288));
}

#[test]
fn a_server_that_does_not_show_models_is_asked_all_the_same() {
    asks_for_context(Exchange::new(404, "text/plain", "404 page not found"), json!({}), Value::Null);
}

#[test]
fn the_server_is_told_not_to_cut_the_prompt() {
    let ended = one_turn(Dialect::Ollama, ollama).run();
    let body = ended.exits(0).request(2).json();
    ended.check(body["truncate"] == false && body["shift"] == false, "truncate and shift");
}

#[test]
fn a_prompt_that_the_server_has_cut_counts_as_too_long() {
    // What older servers say of a prompt that they have cut to the size of the context.
    let cut = json!({
        "message": {"role": "assistant", "content": "What was I to do?"}, "done": true, "done_reason": "stop",
        "prompt_eval_count": 32768, "eval_count": 5,
    });
    let script = [shows_model(), Exchange::json(200, &cut).for_ever()];
    Runtime::new()
        .plays(script)
        .model_config(ollama)
        .run()
        .exits(1)
        .reason("context_exhausted")
        .tells("has cut the prompt");
}

fn in_words() -> Exchange {
    let text: &'static str = Box::leak(chat::achieved_arguments(0).to_string().into_boxed_str());
    answer(Dialect::Ollama, &Answer { text, calls: Vec::new(), ending: Ending::Ordinary })
}

#[test]
fn a_model_that_is_shown_without_tools_finishes_in_words() {
    let model =
        json!({"capabilities": ["completion"], "model_info": {"general.architecture": "a", "a.context_length": 8192}});
    let ended = Runtime::new().plays([shows(model), in_words()]).model_config(ollama).run();
    ended.exits(0).reason("finished").check(ended.request(2).json().get("tools").is_none(), "tools were offered");
}

#[test]
fn a_model_that_refuses_tools_finishes_in_words() {
    let refusal = json!({"error": "registry.ollama.ai/library/m-1 does not support tools"});
    let script = [shows(json!({})), Exchange::json(400, &refusal), in_words()];
    let ended = Runtime::new().plays(script).model_config(ollama).run();
    ended.exits(0).log_has("cannot call tools").check(ended.request(3).json().get("tools").is_none(), "tools");
}

#[test]
fn a_path_of_the_compatible_api_leads_to_the_own_one() {
    let ended = one_turn(Dialect::Ollama, |url| ollama(&format!("{url}/v1"))).run();
    ended.exits(0).check(ended.request(2).path == "/api/chat", "the path");
}
