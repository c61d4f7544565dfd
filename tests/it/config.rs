//! What the environment may say, how a mistake in it is reported, and the three arguments.
//!
//! What may surprise: every wrong value holds [`MARKER`], and no output may.

use std::os::unix::ffi::OsStringExt;

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{API_KEY, Ended, Runtime};

/// Stands in every wrong value, and must come out nowhere.
const MARKER: &str = "marker-7d1c93";

/// A run with everything right but what the caller changes.
fn sound() -> Runtime {
    Runtime::new().plays([])
}

/// This model configuration is an error, and the report names these places.
#[track_caller]
fn model_error(config: Value, places: &[&str]) {
    let ended = sound().env("THOUGHTMESH_MODEL_CONFIG", &config.to_string()).run();
    ended.complains_about(&["THOUGHTMESH_MODEL_CONFIG"]).complains_about(places).never_says(MARKER);
}

/// The fields of a sound configuration in the first shape, with these in addition, are an error there.
#[track_caller]
fn field_error(fields: Value, places: &[&str]) {
    let mut config = json!({"provider": "openai-compatible", "name": "m", "endpoint": "http://127.0.0.1:9/v1"});
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    model_error(config, places);
}

#[track_caller]
fn variable_error(variable: &str, value: &str, places: &[&str]) {
    let ended = sound().env(variable, value).run();
    ended.complains_about(&[variable]).complains_about(places).never_says(MARKER);
}

/// The second entry of the list in this variable is an error, and the report names it by its place, however that is written.
#[track_caller]
fn second_entry_error(variable: &str, list: Value, places: &[&str]) {
    let ended = sound().env(variable, &list.to_string()).run();
    ended.complains_about(&[variable]).complains_about(places).never_says(MARKER);
    let result = ended.termination_message()["result"].to_string();
    let by_place = [": [1]", ": 1:", ": 1."].iter().any(|place| result.contains(place));
    ended.check(by_place, "the second entry is not named by its place");
}

// The model: both shapes.

#[track_caller]
fn runs_with(config: impl Fn(&str) -> Value) -> Ended {
    let ended = Runtime::new().plays([chat::achieved(0)]).model_config(config).run();
    ended.exits(0);
    ended
}

#[test]
fn the_flat_shape_is_read() {
    runs_with(|url| json!({"provider": "openai", "name": "gpt-4", "api_key": API_KEY, "endpoint": url}));
}

#[test]
fn the_shape_of_the_controller_is_read() {
    let ended = runs_with(|url| {
        json!({"worker": {
            "provider": "openai", "modelName": "gpt-4", "endpoint": url, "apiKey": API_KEY, "temperature": "0.2",
            "systemPrompt": "", "params": {"top_p": "0.9", "top_k": "40"},
        }})
    });
    let body = ended.request(1).json();
    ended.check(body["model"] == "gpt-4" && body["temperature"] == 0.2, "model and temperature");
    ended.check(body["top_p"] == 0.9 && body["top_k"] == 40, "params");
}

#[test]
fn every_spelling_of_the_system_prompt_is_read() {
    for field in ["systemPrompt", "system_prompt"] {
        let ended = Runtime::new().plays([chat::achieved(0)]).model_with(json!({field: "You count doors."})).run();
        ended.exits(0).check(ended.request(1).system().contains("You count doors."), field);
    }
}

#[test]
fn empty_fields_are_absent_ones() {
    let empty = json!({
        "temperature": "", "systemPrompt": "", "params": {}, "max_tokens": "", "context_window": "", "headers": {},
        "timeout_seconds": "",
    });
    let ended = Runtime::new().plays([chat::achieved(0)]).model_with(empty).run();
    ended.exits(0).check(!ended.request(1).system().is_empty(), "the base prompt is gone");
}

#[test]
fn null_fields_are_absent_ones() {
    let null = json!({"temperature": null, "systemPrompt": null, "params": null, "headers": null});
    runs_with(|url| {
        let mut config = json!({"provider": "openai-compatible", "name": "m", "endpoint": url, "api_key": API_KEY});
        config.as_object_mut().unwrap().extend(null.as_object().unwrap().clone());
        config
    });
}

#[test]
fn a_field_that_nobody_knows_is_a_warning() {
    let ended = Runtime::new().plays([chat::achieved(0)]).model_with(json!({"topology": MARKER})).run();
    ended.exits(0).log_has("topology").never_says(MARKER);
}

#[test]
fn a_field_that_nobody_knows_in_the_worker_is_a_warning() {
    let ended = runs_with(|url| {
        let worker = json!({"provider": "openai-compatible", "modelName": "m", "endpoint": url, "topology": MARKER});
        json!({"worker": worker})
    });
    ended.log_has("worker.topology").never_says(MARKER);
}

#[test]
fn a_further_role_is_a_warning() {
    let ended = runs_with(|url| {
        let worker = json!({"provider": "openai-compatible", "modelName": "m", "endpoint": url});
        json!({"worker": worker, "manager": {"provider": MARKER}})
    });
    ended.log_has("manager").never_says(MARKER);
}

#[test]
fn a_number_may_be_a_string_everywhere() {
    let strings = json!({"temperature": "0.5", "max_tokens": "512", "context_window": "8192", "timeout_seconds": "30"});
    Runtime::new().plays([chat::achieved(0)]).model_with(strings).run().exits(0);
}

// The model: mistakes.

#[test]
fn the_model_is_required() {
    Runtime::new().run().complains_about(&["THOUGHTMESH_MODEL_CONFIG"]);
}

#[test]
fn an_empty_model_is_an_absent_one() {
    sound().env("THOUGHTMESH_MODEL_CONFIG", "").run().complains_about(&["THOUGHTMESH_MODEL_CONFIG"]);
}

#[test]
fn a_model_that_is_not_json_is_reported_with_line_and_column() {
    let text = format!("{{\"provider\": \"openai\",\n \"api_key\": \"{MARKER}\",\n \"name\": }}");
    variable_error("THOUGHTMESH_MODEL_CONFIG", &text, &["line 3", "column"]);
}

#[test]
fn a_model_that_is_a_bare_word_is_not_repeated() {
    variable_error("THOUGHTMESH_MODEL_CONFIG", MARKER, &["line 1", "column"]);
}

#[test]
fn a_model_that_is_cut_off_is_reported() {
    variable_error("THOUGHTMESH_MODEL_CONFIG", &format!("{{\"api_key\": \"{MARKER}"), &["line 1", "column"]);
}

#[test]
fn something_after_the_model_is_reported() {
    let text = format!("{{\"provider\": \"openai\"}} {MARKER}");
    variable_error("THOUGHTMESH_MODEL_CONFIG", &text, &["line 1", "column"]);
}

#[test]
fn a_model_that_is_no_object_is_reported() {
    for config in [json!([MARKER]), json!(MARKER), json!(17), json!(true), Value::Null] {
        model_error(config, &["object"]);
    }
}

#[test]
fn the_provider_is_required() {
    model_error(json!({"name": "m", "api_key": MARKER}), &["provider"]);
}

#[test]
fn an_unknown_provider_is_reported_with_the_known_ones() {
    let known = ["provider", "openai", "anthropic", "ollama", "vertex", "azure-openai", "mistral", "openai-compatible"];
    model_error(json!({"provider": MARKER, "name": "m"}), &known);
}

#[test]
fn the_name_is_required() {
    model_error(json!({"provider": "openai", "api_key": MARKER}), &["name"]);
    model_error(json!({"provider": "openai", "name": "", "api_key": MARKER}), &["name"]);
}

#[test]
fn the_worker_is_required_among_roles() {
    model_error(json!({"verifier": {"provider": "openai", "modelName": "m", "apiKey": MARKER}}), &["worker"]);
}

#[test]
fn a_role_that_is_no_object_is_reported() {
    model_error(json!({"worker": MARKER}), &["worker", "object"]);
}

#[test]
fn a_mistake_in_the_worker_is_named_by_its_path() {
    model_error(json!({"worker": {"provider": MARKER, "modelName": "m"}}), &["worker.provider"]);
    model_error(json!({"worker": {"provider": "openai", "modelName": [MARKER]}}), &["worker.modelName"]);
}

#[test]
fn a_spelling_is_reported_as_it_was_written() {
    model_error(json!({"provider": "openai", "apiName": [MARKER]}), &["apiName"]);
}

#[test]
fn an_endpoint_is_required_for_a_compatible_server() {
    model_error(json!({"provider": "openai-compatible", "name": "m", "api_key": MARKER}), &["endpoint"]);
}

#[test]
fn an_endpoint_that_is_no_url_is_reported() {
    for endpoint in [MARKER.to_owned(), format!("ftp://{MARKER}/v1"), format!("{MARKER}:8000/v1"), "http://".to_owned()]
    {
        field_error(json!({"endpoint": endpoint}), &["endpoint", "http"]);
    }
}

#[test]
fn a_field_of_the_wrong_type_is_reported() {
    for (field, value) in [
        ("provider", json!(17)),
        ("provider", json!([MARKER])),
        ("name", json!({"x": MARKER})),
        ("endpoint", json!([MARKER])),
        ("api_key", json!([MARKER])),
        ("api_key", json!(7193)),
        ("temperature", json!(true)),
        ("temperature", json!([MARKER])),
        ("systemPrompt", json!({"x": MARKER})),
        ("params", json!(MARKER)),
        ("params", json!([MARKER])),
        ("max_tokens", json!([MARKER])),
        ("context_window", json!({"x": MARKER})),
        ("headers", json!(MARKER)),
        ("timeout_seconds", json!([MARKER])),
    ] {
        field_error(json!({field: value}), &[field]);
    }
}

#[test]
fn a_number_that_is_none_is_reported() {
    for field in ["temperature", "max_tokens", "context_window", "timeout_seconds"] {
        field_error(json!({field: MARKER}), &[field, "number"]);
    }
}

#[test]
fn a_number_that_can_not_be_is_reported() {
    for (field, value) in [
        ("temperature", json!("NaN")),
        ("temperature", json!("inf")),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!("1.5")),
        ("context_window", json!("-8192")),
        ("timeout_seconds", json!(-3)),
        ("timeout_seconds", json!("0")),
    ] {
        field_error(json!({field: value}), &[field]);
    }
}

#[test]
fn a_header_that_is_no_text_is_named_by_its_path() {
    field_error(json!({"headers": {"X-Team": [MARKER]}}), &["headers.X-Team"]);
}

#[test]
fn a_header_that_would_be_two_is_reported() {
    field_error(json!({"headers": {"X-Team": format!("a\r\nX-Other: {MARKER}")}}), &["headers.X-Team"]);
}

#[test]
fn a_key_of_several_lines_is_reported() {
    field_error(json!({"api_key": format!("{MARKER}\nX-Other: 1")}), &["api_key"]);
}

#[test]
fn a_line_end_behind_the_key_does_not_matter() {
    let ended = Runtime::new().plays([chat::achieved(0)]).model_with(json!({"api_key": format!("{API_KEY}\n")})).run();
    ended.exits(0).check(ended.request(1).header("authorization") == Some(&format!("Bearer {API_KEY}")), "the header");
}

// The objective.

#[test]
fn the_objective_is_required() {
    sound().unset("THOUGHTMESH_OBJECTIVE").run().complains_about(&["THOUGHTMESH_OBJECTIVE"]);
}

#[test]
fn a_blank_objective_is_reported() {
    for blank in ["", " ", "\n\t "] {
        sound().objective(blank).run().complains_about(&["THOUGHTMESH_OBJECTIVE"]);
    }
}

#[test]
fn an_objective_that_is_not_utf8_is_reported() {
    let bytes = std::ffi::OsString::from_vec([MARKER.as_bytes(), &[0xff]].concat());
    let ended = sound().env_raw("THOUGHTMESH_OBJECTIVE", bytes).run();
    ended.complains_about(&["THOUGHTMESH_OBJECTIVE", "UTF-8"]).never_says(MARKER);
}

// Key results.

#[test]
fn empty_key_results_are_none() {
    for list in ["", "[]"] {
        Runtime::new().env("THOUGHTMESH_KEY_RESULTS", list).plays([chat::achieved(0)]).run().exits(0);
    }
}

#[test]
fn key_results_that_are_not_json_are_reported_with_line_and_column() {
    variable_error("THOUGHTMESH_KEY_RESULTS", &format!("[\"{MARKER}\",\n]"), &["line 2", "column"]);
}

#[test]
fn key_results_that_are_no_list_are_reported() {
    for value in [json!(MARKER), json!({"a": MARKER}), json!(3)] {
        variable_error("THOUGHTMESH_KEY_RESULTS", &value.to_string(), &["array"]);
    }
}

#[test]
fn a_key_result_of_the_wrong_shape_is_named_by_its_place() {
    for wrong in [json!(3), json!([MARKER]), json!({"text": MARKER}), json!({"description": [MARKER]}), json!("  ")] {
        second_entry_error("THOUGHTMESH_KEY_RESULTS", json!(["sound", wrong]), &[]);
    }
}

#[test]
fn a_check_of_the_wrong_shape_is_named_by_its_path() {
    for wrong in [json!(MARKER), json!({"command": MARKER}), json!({"command": []}), json!({"command": [3]})] {
        let list = json!([{"description": "sound", "check": wrong}]);
        variable_error("THOUGHTMESH_KEY_RESULTS", &list.to_string(), &["check"]);
    }
}

// Tools.

#[test]
fn empty_tools_are_none() {
    for list in ["", "[]"] {
        let ended = Runtime::new().env("THOUGHTMESH_TOOLS", list).plays([chat::achieved(0)]).run();
        ended.exits(0).check(ended.request(1).tool_names() == ["finish"], "tools are offered");
    }
}

#[test]
fn tools_that_are_not_json_are_reported_with_line_and_column() {
    let text = format!("[{{\"name\": \"shell\", \"config\": {{\"x\": \"{MARKER}\"}}}},\n {{\"name\": ]");
    variable_error("THOUGHTMESH_TOOLS", &text, &["line 2", "column"]);
}

#[test]
fn tools_that_are_no_list_are_reported() {
    variable_error("THOUGHTMESH_TOOLS", &json!({"name": MARKER}).to_string(), &["array"]);
}

#[test]
fn a_tool_that_is_no_object_is_named_by_its_place() {
    second_entry_error("THOUGHTMESH_TOOLS", json!([{"name": "shell"}, [MARKER]]), &["object"]);
}

#[test]
fn a_tool_without_a_name_is_named_by_its_place() {
    second_entry_error("THOUGHTMESH_TOOLS", json!([{"name": "shell"}, {"config": {"x": MARKER}}]), &["name"]);
}

#[test]
fn an_unknown_tool_is_reported_with_the_built_in_ones() {
    let built_in =
        ["read_file", "write_file", "edit_file", "list_directory", "find_files", "search_text", "filesystem"];
    let ended = sound().tools_named(&["teleport"]).run();
    ended.complains_about(&["THOUGHTMESH_TOOLS", "name", "shell"]).complains_about(&built_in);
}

#[test]
fn a_tool_named_twice_is_reported() {
    second_entry_error("THOUGHTMESH_TOOLS", json!([{"name": "shell"}, {"name": "shell"}]), &["name"]);
}

#[test]
fn a_tool_that_a_group_holds_already_is_no_second_one() {
    let ended = Runtime::new().tools_named(&["filesystem", "read_file"]).plays([chat::achieved(0)]).run();
    let names = ended.request(1).tool_names();
    ended.exits(0).check(names.iter().filter(|name| *name == "read_file").count() == 1, "read_file is offered twice");
}

#[test]
fn the_name_of_finish_is_taken() {
    sound().tools_named(&["finish"]).run().complains_about(&["THOUGHTMESH_TOOLS", "name"]);
}

#[test]
fn a_tool_config_of_the_wrong_type_is_named_by_its_path() {
    let list = json!([{"name": "shell", "config": MARKER}]);
    variable_error("THOUGHTMESH_TOOLS", &list.to_string(), &["config", "object"]);
}

#[test]
fn a_field_of_a_tool_that_nobody_knows_is_a_warning() {
    let list = json!([{"name": "read_file", "topology": MARKER}]);
    let ended = Runtime::new().tools(list).plays([chat::achieved(0)]).run();
    ended.exits(0).log_has("topology").never_says(MARKER);
}

#[test]
fn a_variable_in_a_tool_config_that_is_unset_is_reported() {
    let list = json!([{"name": "shell", "config": {"env": {"REGION": "${NO_SUCH_REGION}"}}}]);
    sound().tools(list).run().complains_about(&["THOUGHTMESH_TOOLS", "NO_SUCH_REGION"]);
}

// Limits.

#[test]
fn empty_limits_are_none() {
    for object in ["", "{}"] {
        Runtime::new().env("THOUGHTMESH_LIMITS", object).plays([chat::achieved(0)]).run().exits(0);
    }
}

#[test]
fn limits_that_are_not_json_are_reported_with_line_and_column() {
    variable_error("THOUGHTMESH_LIMITS", &format!("{{\"max_turns\": {MARKER}}}"), &["line 1", "column"]);
}

#[test]
fn limits_that_are_no_object_are_reported() {
    variable_error("THOUGHTMESH_LIMITS", &json!([MARKER]).to_string(), &["object"]);
}

#[test]
fn a_limit_that_can_not_be_is_named_by_its_path() {
    for name in ["max_turns", "max_total_tokens", "max_llm_calls", "max_finish_rejections", "max_stalled_turns"] {
        for value in [json!(MARKER), json!(-1), json!(1.5), json!([MARKER]), json!(true)] {
            variable_error("THOUGHTMESH_LIMITS", &json!({name: value}).to_string(), &[name]);
        }
    }
}

#[test]
fn a_limit_that_nobody_knows_is_reported_with_the_nearest_one() {
    let limits = json!({"max_turn": 3});
    sound().limits(limits).run().complains_about(&["THOUGHTMESH_LIMITS", "max_turn", "max_turns"]);
}

// The rest of our variables.

#[test]
fn a_word_that_is_not_one_of_the_accepted_is_reported_with_them() {
    variable_error("THOUGHTMESH_LOG_FORMAT", MARKER, &["text", "json"]);
    variable_error("THOUGHTMESH_EXIT_CODES", MARKER, &["simple", "detailed"]);
}

#[test]
fn empty_words_are_absent_ones() {
    let ended = Runtime::new()
        .env("THOUGHTMESH_LOG_FORMAT", "")
        .env("THOUGHTMESH_EXIT_CODES", "")
        .env("THOUGHTMESH_WORKSPACE", "")
        .plays([chat::achieved(0)])
        .run();
    ended.exits(0);
}

#[test]
fn the_workspace_is_the_root_of_the_file_tools() {
    let runtime = Runtime::new().file("inner/a.txt", "the inner one").file("a.txt", "the outer one");
    let inner = runtime.workspace().join("inner");
    let ended = runtime
        .tools_named(&["read_file"])
        .env("THOUGHTMESH_WORKSPACE", inner.to_str().unwrap())
        .plays([chat::tool_call("read_file", json!({"path": "a.txt"})), chat::achieved(0)])
        .run();
    ended.exits(0).tool_result_has(1, "the inner one");
}

#[test]
fn a_workspace_that_is_no_directory_is_reported() {
    let runtime = sound().file("a.txt", "x");
    let file = runtime.workspace().join("a.txt");
    runtime.env("THOUGHTMESH_WORKSPACE", file.to_str().unwrap()).run().complains_about(&["THOUGHTMESH_WORKSPACE"]);
    sound().env("THOUGHTMESH_WORKSPACE", "/no/such/place").run().complains_about(&["THOUGHTMESH_WORKSPACE"]);
}

#[test]
fn a_variable_of_ours_that_is_not_utf8_is_reported() {
    for variable in ["THOUGHTMESH_MODEL_CONFIG", "THOUGHTMESH_TOOLS", "THOUGHTMESH_LOG_FORMAT"] {
        let bytes = std::ffi::OsString::from_vec([MARKER.as_bytes(), &[0xff]].concat());
        sound().env_raw(variable, bytes).run().complains_about(&[variable]).never_says(MARKER);
    }
}

// Several mistakes at once.

#[test]
fn all_mistakes_of_all_variables_are_reported_at_once() {
    let ended = Runtime::new()
        .env("THOUGHTMESH_MODEL_CONFIG", &json!({"provider": MARKER, "temperature": MARKER}).to_string())
        .objective("")
        .env("THOUGHTMESH_KEY_RESULTS", MARKER)
        .tools(json!([{"config": {}}]))
        .limits(json!({"max_turns": MARKER, "max_llm_calls": MARKER}))
        .env("THOUGHTMESH_WORKSPACE", "/no/such/place")
        .env("THOUGHTMESH_LOG_FORMAT", MARKER)
        .env("THOUGHTMESH_EXIT_CODES", MARKER)
        .run();
    ended.exits(1).reason("config_invalid").never_says(MARKER);
    for place in [
        "THOUGHTMESH_MODEL_CONFIG",
        "provider",
        "temperature",
        "name",
        "THOUGHTMESH_OBJECTIVE",
        "THOUGHTMESH_KEY_RESULTS",
        "THOUGHTMESH_TOOLS",
        "THOUGHTMESH_LIMITS",
        "max_turns",
        "max_llm_calls",
        "THOUGHTMESH_WORKSPACE",
        "THOUGHTMESH_LOG_FORMAT",
        "THOUGHTMESH_EXIT_CODES",
    ] {
        ended.tells(place);
    }
}

#[test]
fn each_mistake_has_a_line_that_begins_with_its_variable() {
    let ended = sound().objective("").limits(json!({"max_turns": MARKER})).run();
    let result = ended.termination_message()["result"].as_str().unwrap_or_default().to_owned();
    for start in ["THOUGHTMESH_OBJECTIVE: ", "THOUGHTMESH_LIMITS: max_turns: "] {
        ended.check(result.contains(start), &format!("the result has no {start:?}"));
        ended.log_has(start);
    }
}

#[test]
fn a_hundred_mistakes_still_make_a_valid_termination_message() {
    let ended = sound().key_results(json!(vec![0; 300])).run();
    ended.exits(1).reason("config_invalid").tells("THOUGHTMESH_KEY_RESULTS");
}

// Exit codes and log format hold for configuration errors too.

#[test]
fn a_configuration_error_has_its_detailed_exit_code() {
    sound().objective("").env("THOUGHTMESH_EXIT_CODES", "detailed").run().exits(78).reason("config_invalid");
}

#[test]
fn a_configuration_error_is_logged_as_json_where_asked_for() {
    let ended = sound().objective("").env("THOUGHTMESH_LOG_FORMAT", "json").run();
    for line in ended.stderr.lines() {
        ended
            .check(serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object()), "a line is not an object");
    }
    ended.log_has("THOUGHTMESH_OBJECTIVE");
}

// Arguments.

#[test]
fn help_lists_every_variable() {
    let ended = Runtime::new().arg("--help").run();
    ended.exits(0);
    for variable in [
        "THOUGHTMESH_MODEL_CONFIG",
        "THOUGHTMESH_OBJECTIVE",
        "THOUGHTMESH_KEY_RESULTS",
        "THOUGHTMESH_TOOLS",
        "THOUGHTMESH_LIMITS",
        "THOUGHTMESH_WORKSPACE",
        "THOUGHTMESH_TERMINATION_LOG",
        "THOUGHTMESH_LOG_FORMAT",
        "THOUGHTMESH_EXIT_CODES",
        "RUST_LOG",
        "OPENAI_API_KEY",
    ] {
        let lines = ended.stdout.lines().filter(|line| line.contains(variable)).count();
        ended.check(lines >= 1, &format!("no line for {variable}"));
    }
}

#[test]
fn help_names_the_other_arguments() {
    let ended = Runtime::new().arg("--help").run();
    ended.check(ended.stdout.contains("--check") && ended.stdout.contains("--version"), "an argument is missing");
}

#[test]
fn help_needs_no_configuration() {
    Runtime::new().unset("THOUGHTMESH_OBJECTIVE").env("THOUGHTMESH_LIMITS", "broken").arg("--help").run().exits(0);
}

#[test]
fn version_is_that_of_the_package() {
    let ended = Runtime::new().arg("--version").run();
    ended.exits(0).check(ended.stdout.trim().ends_with(env!("CARGO_PKG_VERSION")), "the version");
    ended.check(ended.stdout.lines().count() == 1, "more than a line");
}

#[test]
fn check_says_what_would_run_and_asks_no_model() {
    let ended = sound()
        .objective("Count the red doors.")
        .key_results(json!(["The report exists"]))
        .tools_named(&["read_file", "shell"])
        .arg("--check")
        .run();
    ended.exits(0).check(ended.requests.is_empty(), "the model was asked");
    for text in ["test-model", "openai-compatible", "read_file", "shell"] {
        ended.check(ended.stdout.contains(text), &format!("{text} is missing"));
    }
}

#[test]
fn check_tells_no_secret() {
    let ended = sound()
        .env("DEPLOY_TOKEN", MARKER)
        .env("OPENAI_API_KEY", MARKER)
        .env("DATABASE_URL", &format!("postgres://a:{MARKER}@db/x"))
        .model_with(json!({"headers": {"X-Auth": MARKER}}))
        .arg("--check")
        .run();
    ended.exits(0).never_says(MARKER);
}

#[test]
fn check_of_a_wrong_configuration_fails() {
    let ended = sound().limits(json!({"max_turns": MARKER})).arg("--check").run();
    ended.exits(1).log_has("THOUGHTMESH_LIMITS").log_has("max_turns").never_says(MARKER);
}

#[test]
fn check_of_a_wrong_configuration_has_its_detailed_exit_code() {
    let ended = sound().objective("").env("THOUGHTMESH_EXIT_CODES", "detailed").arg("--check").run();
    ended.exits(78).log_has("THOUGHTMESH_OBJECTIVE");
}

#[test]
fn check_misses_the_key_that_openai_needs() {
    let config = json!({"provider": "openai", "name": "gpt-4"}).to_string();
    let ended = Runtime::new().env("THOUGHTMESH_MODEL_CONFIG", &config).arg("--check").run();
    ended.exits(1).log_has("OPENAI_API_KEY");
}

#[test]
fn any_other_argument_names_help() {
    for argument in ["--bogus", "-x", "run", "--check=yes", ""] {
        let ended = sound().arg(argument).run();
        ended.check(!ended.status.success(), &format!("{argument:?} was taken")).log_has("--help");
        ended.check(ended.requests.is_empty(), "the model was asked");
    }
}

#[test]
fn two_arguments_are_one_too_many() {
    let ended = sound().arg("--check").arg("--bogus").run();
    ended.check(!ended.status.success(), "they were taken").log_has("--help");
}

#[test]
fn an_argument_that_is_not_utf8_names_help() {
    let ended = sound().arg(std::ffi::OsString::from_vec(vec![b'-', 0xff])).run();
    ended.check(!ended.status.success(), "it was taken").log_has("--help");
}
