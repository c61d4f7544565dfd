//! A command of the user's, offered as a tool: its arguments are made from the model's, one by one.
//!
//! No shell sees them. A placeholder is replaced within its argument, never split, and an argument with a placeholder that
//! the model gave no value for is left out. What may surprise: a value cannot turn an argument into an option, unless the
//! entry says so; `rm {path}` with the path `-rf` is refused.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use serde_json::{Map, Value};

use super::ToolError;
use super::child::{self, Program, Surroundings};
use crate::config::options::{CommandOptions, Piece, Template};
use crate::conversation::ToolSpec;
use crate::host::process;

/// Whether the command is there, as seen from the workspace. Fails with what is missing, worded for the person.
pub fn probe(options: &CommandOptions, workspace: &Path, path_variable: &OsStr) -> Result<(), String> {
    let program = match options.program.contains('/') {
        true => workspace.join(&options.program).into_os_string(),
        false => OsString::from(&options.program),
    };
    match process::find_program(&program, path_variable) {
        Some(_) => Ok(()),
        None => {
            Err("config.command[0] is not an executable program here, accepted: a name on PATH, or a path".to_owned())
        }
    }
}

/// The tool as the model sees it.
pub fn spec(name: &str, options: &CommandOptions) -> ToolSpec {
    ToolSpec { name: name.to_owned(), description: options.description.clone(), parameters: options.parameters.clone() }
}

/// Runs it. The arguments fit its schema.
pub fn run(
    options: &CommandOptions,
    arguments: &Map<String, Value>,
    surroundings: &Surroundings,
) -> Result<String, ToolError> {
    let mut words = Vec::new();
    for template in &options.arguments {
        words.extend(filled(template, options, arguments)?.map(OsString::from));
    }
    let stdin = match options.has_stdin {
        true => Value::Object(arguments.clone()).to_string().into_bytes(),
        false => Vec::new(),
    };
    child::run(Program { program: OsString::from(&options.program), arguments: words, stdin }, surroundings)
}

/// The argument; `None` when a parameter in it has no value.
fn filled(
    template: &Template,
    options: &CommandOptions,
    arguments: &Map<String, Value>,
) -> Result<Option<String>, ToolError> {
    let mut word = String::new();
    let mut dash_is_ours = false;
    for piece in &template.0 {
        match piece {
            Piece::Text(text) => {
                dash_is_ours |= word.is_empty() && text.starts_with('-');
                word.push_str(text);
            }
            Piece::Parameter(name) => match value_of(name, options, arguments) {
                Some(value) => word.push_str(&value),
                None => return Ok(None),
            },
        }
    }
    if word.contains('\0') {
        return Err(ToolError::Arguments(format!("{}: holds a NUL byte, leave it out", named(template))));
    }
    if word.starts_with('-') && !dash_is_ours && !options.allows_options {
        let what = "begins with -, which the program would take for an option; for a file write ./ before it";
        return Err(ToolError::Refused(format!("{}: {what}", named(template))));
    }
    Ok(Some(word))
}

/// The model's value, or the schema's default. Text is taken as it is, everything else as JSON.
fn value_of(name: &str, options: &CommandOptions, arguments: &Map<String, Value>) -> Option<String> {
    let given = arguments.get(name).filter(|value| !value.is_null());
    let default = || options.parameters.get("properties")?.get(name)?.get("default");
    match given.or_else(default)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The parameters in it, for a message.
fn named(template: &Template) -> String {
    let names = template.0.iter().filter_map(|piece| match piece {
        Piece::Parameter(name) => Some(name.as_str()),
        Piece::Text(_) => None,
    });
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(pieces: &[Piece], allows_options: bool) -> CommandOptions {
        CommandOptions {
            program: "true".to_owned(),
            arguments: vec![Template(pieces.to_vec())],
            description: String::new(),
            parameters: json!({"type": "object", "properties": {"a": {"default": 7}, "b": {}}}),
            has_stdin: false,
            allows_options,
        }
    }

    fn fill(pieces: &[Piece], arguments: Value) -> Result<Option<String>, ToolError> {
        let options = options(pieces, false);
        filled(&options.arguments[0], &options, arguments.as_object().unwrap())
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn parameter(name: &str) -> Piece {
        Piece::Parameter(name.to_owned())
    }

    #[test]
    fn values_are_put_in_as_they_are() {
        let pieces = [text("--x="), parameter("b")];
        assert_eq!(fill(&pieces, json!({"b": "a b $(c) -d {a}"})), Ok(Some("--x=a b $(c) -d {a}".to_owned())));
        assert_eq!(fill(&pieces, json!({"b": [1, "x"]})), Ok(Some("--x=[1,\"x\"]".to_owned())));
        assert_eq!(fill(&pieces, json!({"b": true})), Ok(Some("--x=true".to_owned())));
    }

    #[test]
    fn without_a_value_there_is_the_default_or_no_argument() {
        assert_eq!(fill(&[parameter("a")], json!({})), Ok(Some("7".to_owned())));
        assert_eq!(fill(&[text("--x="), parameter("b")], json!({"b": null})), Ok(None));
    }

    #[test]
    fn a_value_does_not_become_an_option() {
        for pieces in [&[parameter("b")][..], &[parameter("a"), parameter("b")]] {
            let refused = fill(pieces, json!({"a": "", "b": "-rf"}));
            assert!(matches!(refused, Err(ToolError::Refused(_))), "{refused:?}");
        }
        assert_eq!(fill(&[text("-"), parameter("b")], json!({"b": "-x"})), Ok(Some("--x".to_owned())));
        let open = options(&[parameter("b")], true);
        let arguments = json!({"b": "-x"});
        assert_eq!(filled(&open.arguments[0], &open, arguments.as_object().unwrap()), Ok(Some("-x".to_owned())));
    }
}
