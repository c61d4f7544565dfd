"""A model provider for the gateway to stand in front of: it reads a file, then finishes. Python's standard library only.

It speaks Chat Completions, Responses and Anthropic Messages, whole and streamed. Models whose name ends in `unmet` say that the
key result is not met.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100, "prompt_tokens_details": {"cached_tokens": 12}}


def next_call(body):
    """Name and arguments of the call that the conversation so far leads to."""
    text = json.dumps(body.get("messages") or body.get("input"))
    if "the content of a" not in text:
        return "read_file", {"path": "a.txt"}
    met = not body["model"].endswith("unmet")
    result = {"key_result": 1, "met": met, "evidence": "a.txt says: the content of a"}
    return "finish", {"status": "achieved", "summary": "It was read.", "key_results": [result]}


def chat(body):
    name, arguments = next_call(body)
    call = {"id": "call_" + name, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    head = {"id": "c", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return {**head, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    head["object"] = "chat.completion.chunk"
    arguments = call["function"].pop("arguments")
    first = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
    deltas = [{"role": "assistant", "content": None}, {"tool_calls": [first]}]
    for half in (arguments[:9], arguments[9:]):
        deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": half}}]})
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    chunks.append({**head, "choices": [], "usage": USAGE})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def messages(body):
    name, arguments = next_call(body)
    thinking = {"type": "thinking", "thinking": "Let me see.", "signature": "U2lnbmF0dXJl"}
    call = {"type": "tool_use", "id": "toolu_" + name, "name": name, "input": arguments}
    usage = {"input_tokens": 48, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 12, "output_tokens": 40}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
    if not body.get("stream"):
        return {**head, "content": [thinking, call], "stop_reason": "tool_use", "usage": usage}
    events = [
        {"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me see."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "U2lnbmF0dXJl"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {**call, "input": {}}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": json.dumps(arguments)},
        },
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 40}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def responses(body):
    name, arguments = next_call(body)
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "U2lnbmF0dXJl"}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_" + name, "name": name, "status": "completed"}
    call["arguments"] = json.dumps(arguments)
    usage = {
        "input_tokens": 60,
        "input_tokens_details": {"cached_tokens": 12},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 22},
        "total_tokens": 100,
    }
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "error": None, "usage": usage}
    head |= {"incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {}}
    whole = {**head, "status": "completed", "output": [reasoning, call]}
    if not body.get("stream"):
        return whole
    events = [{"type": "response.created", "response": {**whole, "status": "in_progress", "output": [], "usage": None}}]
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        arguments = item.get("arguments")
        begun = {**item, "arguments": "", "status": "in_progress"} if arguments else item
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        for half in (arguments[:9], arguments[9:]) if arguments else ():
            events.append({"type": "response.function_call_arguments.delta", **place, "delta": half})
        if arguments:
            events.append({"type": "response.function_call_arguments.done", **place, "arguments": arguments})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": whole})
    for number, event in enumerate(events):
        event["sequence_number"] = number
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


SPEAKS = {"/v1/chat/completions": chat, "/v1/messages": messages, "/v1/responses": responses}


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        speaks = SPEAKS.get(self.path.split("?")[0])
        answer = speaks(body) if speaks else {"error": {"message": f"no {self.path} here"}}
        content_type = "text/event-stream" if isinstance(answer, str) else "application/json"
        content = answer if isinstance(answer, str) else json.dumps(answer)
        self.send_response(200 if speaks else 404)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_):
        pass


def serve():
    """The server, on a port of its own; whoever asks for it runs it."""
    return ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
