//! Commands of the user's as tools: what they get, what is refused, and what is found wrong before the first model call.

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Runtime};

/// Prints each of its arguments between brackets, then what it reads.
const SHOW: &str = "for word in \"$@\"; do printf '<%s>' \"$word\"; done; cat";

/// An entry that runs `SHOW` with these arguments; further fields of its config are added.
fn shows(arguments: &[&str], fields: Value) -> Value {
    let mut command = vec!["sh", "-c", SHOW, "show"];
    command.extend(arguments);
    let mut config = json!({"command": command});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!([{"name": "show", "config": config}])
}

fn parameters(names: &[&str]) -> Value {
    let properties: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    json!({"type": "object", "properties": properties})
}

/// Calls the tool `show` with these arguments, one turn after the other, then gives up.
fn calling(runtime: Runtime, calls: &[Value]) -> Ended {
    let calls = calls.iter().map(|arguments| chat::tool_call("show", arguments.clone()));
    let last = chat::finish(json!({"status": "failed", "summary": "The test is over.", "key_results": []}));
    let ended = runtime.plays(calls.chain([last])).run();
    ended.exits(1).reason("gave_up");
    ended
}

#[test]
fn it_is_offered_as_its_entry_describes_it() {
    let fields = json!({"description": "Shows words.", "parameters": parameters(&["path"])});
    let ended = Runtime::new().tools(shows(&["{path}"], fields)).plays([chat::achieved(0)]).run();
    ended.exits(0).check(ended.request(1).tool_names() == ["finish", "show"], "the tools offered");
    let tool = ended.request(1).json()["tools"][1]["function"].clone();
    ended.check(tool["description"] == "Shows words.", "the description");
    ended.check(tool["parameters"]["properties"]["path"]["type"] == "string", "the parameters");
    ended.check(tool["parameters"]["additionalProperties"] == false, "other arguments are accepted");
}

#[test]
fn a_placeholder_is_replaced_inside_one_argument() {
    let tools = shows(&["--in={path}", "{path}", "fixed"], json!({"parameters": parameters(&["path"])}));
    let ended = calling(Runtime::new().tools(tools), &[json!({"path": "two words; $(id) `id` {path} \"' *"})]);
    let value = "two words; $(id) `id` {path} \"' *";
    ended.tool_result_has(1, &format!("<--in={value}><{value}><fixed>"));
}

#[test]
fn an_argument_that_begins_with_a_dash_is_refused() {
    let tools = shows(&["{path}"], json!({"parameters": parameters(&["path"])}));
    let ended = calling(Runtime::new().tools(tools), &[json!({"path": "-rf"}), json!({"path": "--version"})]);
    for number in [1, 2] {
        ended.tool_result_has(number, "path").tool_result_has(number, "refused").tool_result_lacks(number, "<-");
    }
}

#[test]
fn a_dash_is_fine_where_the_entry_allows_it() {
    let fields = json!({"parameters": parameters(&["path"]), "allow_options": true});
    let ended = calling(Runtime::new().tools(shows(&["{path}"], fields)), &[json!({"path": "-rf"})]);
    ended.tool_result_has(1, "<-rf>");
}

#[test]
fn an_argument_whose_parameter_is_left_out_is_left_out() {
    let tools = shows(&["--level={level}", "{path}"], json!({"parameters": parameters(&["path", "level"])}));
    let ended = calling(Runtime::new().tools(tools), &[json!({"path": "a"}), json!({"path": "a", "level": null})]);
    ended.tool_result_has(1, "<a>").tool_result_lacks(1, "level").tool_result_lacks(2, "level");
}

#[test]
fn without_parameters_it_takes_no_arguments() {
    let ended = calling(Runtime::new().tools(shows(&["{path}"], json!({}))), &[json!({"path": "x"}), json!({})]);
    ended.tool_result_has(1, "path").tool_result_has(1, "bad arguments");
    // And nothing is replaced: there is nothing to replace it with.
    ended.tool_result_has(2, "<{path}>");
}

#[test]
fn arguments_are_checked_against_its_schema() {
    let schema = json!({"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]});
    let ended = calling(
        Runtime::new().tools(shows(&["{count}"], json!({"parameters": schema}))),
        &[json!({"count": "many"}), json!({}), json!({"count": 3, "cuont": 3}), json!({"count": 3})],
    );
    ended.tool_result_has(1, "count").tool_result_has(2, "count").tool_result_has(3, "cuont");
    ended.tool_result_has(4, "<3>");
}

#[test]
fn with_stdin_the_arguments_come_as_json() {
    let fields = json!({"parameters": parameters(&["path", "text"]), "stdin": true});
    let ended = calling(Runtime::new().tools(shows(&[], fields)), &[json!({"path": "-a", "text": "b\nc"})]);
    ended.tool_result_has(1, r#"{"path":"-a","text":"b\nc"}"#);
}

#[test]
fn without_stdin_there_is_nothing_to_read() {
    let ended = calling(Runtime::new().tools(shows(&["x"], json!({}))), &[json!({})]);
    ended.check(ended.tool_result(1).starts_with("<x>\n") || ended.tool_result(1) == "<x>", "it read something");
}

#[test]
fn it_gets_the_variables_of_its_entry_and_no_others() {
    let command = json!(["sh", "-c", "env"]);
    let tools = json!([{"name": "show", "config": {"command": command, "env": ["GIVEN_VALUE"]}}]);
    let runtime = Runtime::new().tools(tools).env("GIVEN_VALUE", "given-marker").env("OTHER_VALUE", "other-marker");
    let ended = calling(runtime, &[json!({})]);
    ended.tool_result_has(1, "given-marker").tool_result_lacks(1, "other-marker").tool_result_lacks(1, "THOUGHTMESH_");
}

#[test]
fn a_token_of_its_entry_reaches_it_and_not_the_model() {
    let command = json!(["sh", "-c", "printf %s \"$GITHUB_TOKEN\" > token; echo \"$GITHUB_TOKEN\""]);
    let tools = json!([{"name": "show", "config": {"command": command, "env": ["GITHUB_TOKEN"]}}]);
    let ended = calling(Runtime::new().tools(tools).env("GITHUB_TOKEN", "marker-77aa01"), &[json!({})]);
    ended.file_is("token", "marker-77aa01").tool_result_lacks(1, "marker-77aa01").tool_result_has(1, "GITHUB_TOKEN");
}

#[test]
fn it_is_ended_at_the_limit_of_its_entry() {
    let command = json!(["sh", "-c", "echo started; exec sleep 300"]);
    let tools = json!([{"name": "show", "config": {"command": command, "timeout_seconds": 1}}]);
    let ended = calling(Runtime::new().tools(tools), &[json!({})]);
    ended.tool_result_has(1, "started").tool_result_has(1, "1 s");
}

#[test]
fn its_output_is_cut_at_the_limit_of_its_entry() {
    let command = json!(["sh", "-c", "seq 1 100000"]);
    let tools = json!([{"name": "show", "config": {"command": command, "output_bytes_max": 2000}}]);
    let ended = calling(Runtime::new().tools(tools), &[json!({})]);
    ended.check(ended.tool_result(1).len() <= 2000, "the result is too long").tool_result_has(1, "cut");
}

#[test]
fn an_exit_code_is_a_failure_that_is_told() {
    let tools = json!([{"name": "show", "config": {"command": ["sh", "-c", "echo why; exit 9"]}}]);
    calling(Runtime::new().tools(tools), &[json!({})]).tool_result_has(1, "why").tool_result_has(1, "exit code 9");
}

#[test]
fn a_path_counts_from_the_workspace() {
    let runtime = Runtime::new().file("bin/lint", "#!/bin/sh\necho linted $1\n");
    let path = runtime.workspace().join("bin/lint");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = json!({"command": ["bin/lint", "{path}"], "parameters": parameters(&["path"])});
    let ended = calling(runtime.tools(json!([{"name": "show", "config": config}])), &[json!({"path": "a"})]);
    ended.tool_result_has(1, "linted a");
}

// What is found before the first model call.

fn faulty(config: Value) -> Ended {
    let runtime = Runtime::new().plays([]);
    let ended = runtime.tools(json!([{"name": "show", "config": config}])).run();
    ended.check(ended.requests.is_empty(), "the model was asked");
    ended
}

#[test]
fn a_program_that_is_missing_ends_the_run() {
    let missing = faulty(json!({"command": ["no-such-program"]}));
    missing.exits(1).reason("tool_unavailable").tells("command");
    faulty(json!({"command": ["./nowhere"]})).exits(1).reason("tool_unavailable");
    faulty(json!({"command": ["/etc/passwd"]})).exits(1).reason("tool_unavailable");
}

#[test]
fn a_program_that_is_missing_and_not_required_is_left_out() {
    let entry = json!([{"name": "show", "required": false, "config": {"command": ["no-such-program"]}}]);
    let ended = Runtime::new().tools(entry).plays([chat::achieved(0)]).run();
    ended.exits(0).log_has("show").check(ended.request(1).tool_names() == ["finish"], "it is offered");
}

#[test]
fn a_placeholder_that_is_no_parameter_is_a_mistake() {
    let ended = faulty(json!({"command": ["true", "{pth}"], "parameters": parameters(&["path"])}));
    ended.complains_about(&["[0].config.command[1]", "did you mean `{path}`"]);
}

#[test]
fn a_parameter_that_reaches_nobody_is_a_mistake() {
    let ended = faulty(json!({"command": ["true", "{path}"], "parameters": parameters(&["path", "level"])}));
    ended.complains_about(&["level", "stdin"]);
}

#[test]
fn the_program_is_not_up_to_the_model() {
    let ended = faulty(json!({"command": ["{path}"], "parameters": parameters(&["path"])}));
    ended.complains_about(&["[0].config.command[0]"]);
}

#[test]
fn an_empty_command_is_a_mistake() {
    for command in [json!([]), json!("true"), json!([""]), json!(null), json!([7])] {
        faulty(json!({"command": command})).complains_about(&["config.command"]);
    }
}

#[test]
fn parameters_that_are_no_schema_of_an_object_are_a_mistake() {
    for schema in [json!([]), json!({"path": {"type": "string"}}), json!({"type": "string"}), json!({"properties": 3})]
    {
        faulty(json!({"command": ["true"], "parameters": schema}))
            .complains_about(&["config.parameters", "properties"]);
    }
}

#[test]
fn an_unknown_field_is_a_mistake_that_names_the_nearest() {
    let ended = faulty(json!({"command": ["true"], "timeout_secnods": 3, "sdtin": true}));
    ended.complains_about(&["did you mean `timeout_seconds`", "did you mean `stdin`"]);
}

#[test]
fn its_name_is_one_that_every_provider_takes() {
    for name in ["a b", "a/b", "ä", "finish", &"x".repeat(65)] {
        let runtime = Runtime::new().plays([]);
        let ended = runtime.tools(json!([{"name": name, "config": {"command": ["true"]}}])).run();
        ended.complains_about(&["[0].name"]);
    }
}

#[test]
fn it_may_stand_in_for_a_tool_of_ours_but_not_beside_it() {
    let own = json!({"name": "git", "config": {"command": ["echo", "my own git"]}});
    let ended = Runtime::new().tools(json!([own])).plays([chat::tool_call("git", json!({})), chat::achieved(0)]).run();
    ended.exits(0).tool_result_has(1, "my own git");
    let reader = json!({"name": "read_file", "config": {"command": ["true"]}});
    let ended = Runtime::new().tools(json!([{"name": "filesystem"}, reader])).plays([]).run();
    ended.exits(1).reason("tool_unavailable").tells("read_file");
}
