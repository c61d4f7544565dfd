"""Holds our requests, and the answers in our golden files, to the types of the vendors' own libraries.

`vendor_types.py GOLDEN CAPTURED`, with the Python that has openai, anthropic, google-genai, mistralai and ollama. GOLDEN is the
folder of golden files; CAPTURED holds the requests of black-box runs, as `tests/it/runtime.rs` writes them. A field that a type
does not know is an error too. What is known to differ stands in EXCEPTIONS, each with its reason; an exception that no longer
differs is an error.
"""

import fnmatch
import json
import pathlib
import re
import sys
import typing

import anthropic.types
import google.genai.types
import mistralai.client.models
import ollama
import openai.types.chat
import openai.types.responses
import pydantic
import typing_extensions

# Fields of requests that are sent although the vendor's type does not know them: format, path, why.
EXTENSIONS = [
    ("openai", r"messages\.\d+\.(reasoning_content|reasoning)", "compatible servers want it back; OpenAI sends none"),
    ("anthropic", r"temperature|top_p|top_k", "the version 2023-06-01 takes them, the library is for 2026-10-21"),
    ("ollama", r"truncate|shift", "the server reads them, the library has not got them"),
    (
        "ollama",
        r"tools\.\d+\.function\.parameters\..*(additionalProperties|minimum|maximum|minLength)",
        "the server passes over keywords of a schema that it does not know",
    ),
]
# Cases that are not what the vendor's type says, and why. `*` stands for anything.
UNKNOWN = "unknown kinds and fields are kept as they came"
BROKEN = "an answer that is broken on purpose; the case's name says how"
SPARSE = "what compatible servers and gateways leave out"
EXCEPTIONS = {
    "anthropic/unknown_fields_and_kinds/*": UNKNOWN,
    "gemini/unknown_fields_and_kinds/*": UNKNOWN,
    "gemini/options_and_parameters/request.json": "a parameter that nobody knows is passed on",
    "mistral/unknown_fields_and_kinds/response.json": UNKNOWN,
    "openai/unknown_fields_and_kinds/response.json": UNKNOWN,
    "responses/unknown_fields_and_kinds/*": UNKNOWN,
    "*/arguments_as_object/response.json": SPARSE,
    "*/arguments_missing_or_not_json/response.json": BROKEN,
    "*/call_without_name/response.json": BROKEN,
    "*/content_null/response.json": SPARSE,
    "*/content_as_text/response.json": SPARSE,
    "*/error_in_200/response.json": BROKEN,
    "*/error_object_in_200/response.json": BROKEN,
    "*/ids_missing_or_*/response.json": SPARSE,
    "*/ids_of_*/response.json": SPARSE,
    "*/no_choices/response.json": BROKEN,
    "*/no_content/response.json": BROKEN,
    "*/no_message/response.json": BROKEN,
    "*/no_output/response.json": BROKEN,
    "*/non_ascii_and_lone_surrogates/response.json": BROKEN,
    "*/page_in_200/response.json": BROKEN,
    "*/usage_in_floats/response.json": SPARSE,
    "*/usage_missing/response.json": SPARSE,
}


def forbid_unknown_fields(package):
    """Makes the dictionaries of a package refuse what they do not know; by default they ignore it."""
    modules = [module for name, module in sys.modules.items() if name.startswith(package + ".")]
    for kind in [kind for module in modules for kind in vars(module).values()]:
        if isinstance(kind, type) and typing_extensions.is_typeddict(kind):
            kind.__pydantic_config__ = {"extra": "forbid", "arbitrary_types_allowed": True}


def whole(value):
    """Takes out of a value what is only checked when it is taken out: pydantic is lazy with `Iterable`."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, (str, bytes, int, float, bool, type(None), pydantic.BaseModel)):
        return value
    return [whole(item) for item in value] if isinstance(value, typing.Iterable) else value


def typed_dict(*kinds):
    adapter = pydantic.TypeAdapter(typing.Union[kinds] if len(kinds) > 1 else kinds[0])
    return lambda body: whole(adapter.validate_python(body))


def without(extensions, value, path=""):
    """The value without the fields of the extensions, which are counted."""
    if isinstance(value, list):
        return [without(extensions, item, f"{path}{index}.") for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, item in value.items():
        matching = [pattern for pattern in extensions if re.fullmatch(pattern, path + key)]
        for pattern in matching:
            extensions[pattern] += 1
        if not matching:
            kept[key] = without(extensions, item, f"{path}{key}.")
    return kept


def lost(given, kept, path=""):
    """Paths of what was given and is not kept."""
    if isinstance(given, dict) and isinstance(kept, dict):
        missing = [f"{path}.{key}" for key in given if key not in kept]
        return missing + [place for key in given if key in kept for place in lost(given[key], kept[key], f"{path}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [place for index, pair in enumerate(zip(given, kept)) for place in lost(*pair, f"{path}[{index}]")]
    return []


def model(kind):
    """By a pydantic model; fields that it drops are unknown to it."""

    def check(body):
        kept = kind.model_validate(body).model_dump(mode="json", by_alias=True)
        unknown = lost(body, kept)
        if unknown:
            raise ValueError(f"unknown to {kind.__name__}: {', '.join(unknown)}")

    return check


def gemini_request(body):
    kinds = google.genai.types
    parts = {
        "contents": list[kinds.Content],
        "systemInstruction": kinds.Content,
        "tools": list[kinds.Tool],
        "generationConfig": kinds.GenerationConfig,
        "safetySettings": list[kinds.SafetySetting],
        "toolConfig": kinds.ToolConfig,
        "cachedContent": str,
        "labels": dict[str, str],
        "serviceTier": str,
    }
    for name, value in body.items():
        pydantic.TypeAdapter(parts[name]).validate_json(json.dumps(value))


def checks():
    """Format → what checks a request, what checks an answer."""
    forbid_unknown_fields("openai.types")
    forbid_unknown_fields("anthropic.types")
    chat, responses = openai.types.chat.completion_create_params, openai.types.responses.response_create_params
    messages = anthropic.types.message_create_params
    return {
        "openai": (
            typed_dict(chat.CompletionCreateParamsStreaming, chat.CompletionCreateParamsNonStreaming),
            openai.types.chat.ChatCompletion.model_validate,
        ),
        "responses": (
            typed_dict(responses.ResponseCreateParamsStreaming, responses.ResponseCreateParamsNonStreaming),
            openai.types.responses.Response.model_validate,
        ),
        "anthropic": (
            typed_dict(messages.MessageCreateParamsStreaming, messages.MessageCreateParamsNonStreaming),
            anthropic.types.Message.model_validate,
        ),
        "gemini": (gemini_request, google.genai.types.GenerateContentResponse.model_validate),
        "mistral": (
            model(mistralai.client.models.ChatCompletionRequest),
            mistralai.client.models.ChatCompletionResponse.model_validate,
        ),
        "ollama": (model(ollama._types.ChatRequest), ollama.ChatResponse.model_validate),
    }


def format_of(captured):
    """By the provider that was configured and the path that was asked."""
    provider, path = captured["provider"], captured["path"].split("?")[0]
    if provider in ("anthropic", "mistral", "ollama"):
        return provider if not path.endswith("/api/show") else None
    if provider in ("gemini", "google", "vertex"):
        return "gemini" if "enerateContent" in path else None
    return "responses" if path.endswith("/responses") else "openai" if path.endswith("/chat/completions") else None


def cases(golden, captured):
    """Name, format, 0 for a request and 1 for an answer, body."""
    for kind, name in enumerate(("request.json", "response.json")):
        for file in sorted(golden.glob(f"*/*/{name}")):
            case = f"{file.parent.parent.name}/{file.parent.name}/{name}"
            try:
                body = json.loads(file.read_bytes())
            except ValueError as error:
                body = error
            yield case, file.parent.parent.name, kind, body
    for file in sorted(captured.glob("*.json")):
        request = json.loads(file.read_text())
        if request["body"] is not None and format_of(request):
            yield f"captured/{request['test']}", format_of(request), 0, request["body"]


def bites(check, body):
    """Whether the check refuses a request that is wrong: an unknown field at the top, and in the last thing that was said."""
    said = next(name for name in ("messages", "input", "contents") if name in body)
    nested = json.loads(json.dumps(body))
    nested[said][-1]["hologram"] = 1
    for wrong in ({**body, "hologram": 1}, nested):
        try:
            check(wrong)
        except (ValueError, KeyError):
            continue
        return False
    return True


def main():
    golden, captured = map(pathlib.Path, sys.argv[1:])
    by_format, counts, faults, used, bitten = checks(), {}, [], set(), set()
    extensions = {kind: {pattern: 0 for other, pattern, _ in EXTENSIONS if other == kind} for kind in by_format}
    for name, kind, is_answer, body in cases(golden, captured):
        if not is_answer and kind not in bitten:
            bitten.add(kind)
            if not bites(by_format[kind][0], body):
                faults.append(f"{kind}: a request that is wrong is not refused, so the others prove nothing")
        excepted = [pattern for pattern in EXCEPTIONS if fnmatch.fnmatch(name, pattern)]
        fault = None
        try:
            if isinstance(body, ValueError):
                raise body
            by_format[kind][is_answer](body if is_answer else without(extensions[kind], body))
        except (ValueError, TypeError, KeyError) as error:
            fault = f"{name}: {type(error).__name__}: {error}"
        if fault and excepted:
            used.update(excepted)
        elif fault:
            faults.append(fault)
        place = (kind, "answers" if is_answer else "captured" if name.startswith("captured/") else "requests")
        counts[place] = counts.get(place, 0) + 1
    unused = [pattern for patterns in extensions.values() for pattern, count in patterns.items() if count == 0]
    unused += [pattern for pattern in EXCEPTIONS if pattern not in used]
    faults += [f"{pattern}: an exception that nothing needs" for pattern in unused]
    for (kind, what), count in sorted(counts.items()):
        print(f"types: {kind}: {count} {what}")
    print(f"types: {len(EXTENSIONS)} fields and {len(EXCEPTIONS)} cases are known to differ")
    # A count of 0 would prove nothing.
    if not all((kind, what) in counts for kind in by_format for what in ("requests", "captured", "answers")):
        faults.append("a format has no requests, no captured requests or no answers")
    if faults:
        raise SystemExit("\n\n".join(faults) + f"\n\ntypes: {len(faults)} faults")


main()
