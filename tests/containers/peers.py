"""What a container and its cluster talk to in these tests: a model, a name server, a proxy, a certificate authority, a
registry of images, an API server. Standard library only.

Everything listens on loopback of the network namespace that `run` has made, and writes down what it was asked.
"""

import ipaddress
import itertools
import json
import pathlib
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}
A, AAAA = 1, 28
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME = 0, 2, 3


def finish(key_results=0, status="achieved", summary="It was done."):
    """The call that ends a run."""
    results = [{"key_result": n + 1, "met": True, "evidence": "seen"} for n in range(key_results)]
    return [("finish", {"status": status, "summary": summary, "key_results": results})]


class Peer:
    """What serves until the end of its `with`, from `self.server`."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Model(Peer):
    """A model that plays a script, one entry for each request: a list of tool calls, a text, `(status, body)`, or `STALL`.

    It speaks Chat Completions as an event stream, and Ollama's own API.
    """

    STALL = object()

    def __init__(self, script, port=0, certificate=None, address="127.0.0.1"):
        self.script = list(script)
        self.requests = []
        self.stalled = threading.Event()
        model = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                if self.path == "/api/show":
                    self.answer(200, "application/json", json.dumps({"model_info": {"qwen3.context_length": 40960}}))
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                model.requests.append({"path": self.path, "headers": headers, "body": body})
                entry = model.script.pop(0) if model.script else (404, {"error": {"message": "the script is over"}})
                if entry is Model.STALL:
                    model.stalled.set()
                    self.rfile.read(1)  # until the other side hangs up
                elif isinstance(entry, tuple):
                    self.answer(entry[0], "application/json", json.dumps(entry[1]))
                elif self.path == "/api/chat":
                    self.answer(200, "application/x-ndjson", ollama(body, entry))
                else:
                    self.answer(200, "text/event-stream", chat(body, entry))

            def answer(self, status, kind, text):
                content = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer((address, port), Door)
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def text(self):
        """All that it was asked."""
        return json.dumps([request["body"] for request in self.requests], ensure_ascii=False)


def chat(body, entry):
    """An event stream of Chat Completions."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    delta, reason = {"role": "assistant", "content": entry}, "stop"
    if not isinstance(entry, str):
        delta, reason = {"role": "assistant", "content": None, "tool_calls": []}, "tool_calls"
        for index, (name, arguments) in enumerate(entry):
            function = {"name": name, "arguments": json.dumps(arguments)}
            call = {"index": index, "id": f"call_{len(body['messages'])}_{index}", "type": "function", "function": function}
            delta["tool_calls"].append(call)
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append({"choices": [], "usage": USAGE})
    return "".join(f"data: {json.dumps({**head, **chunk})}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def ollama(body, entry):
    """Lines of Ollama's /api/chat."""
    message = {"role": "assistant", "content": entry}
    if not isinstance(entry, str):
        calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in entry]
        message = {"role": "assistant", "content": "", "tool_calls": calls}
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 60, "eval_count": 40}
    lines = [{"message": message, "done": False}, {"message": {"role": "assistant", "content": ""}, **end}]
    return "".join(json.dumps({"model": body["model"], **line}) + "\n" for line in lines)


class Resolver(Peer):
    """A name server: `names` are known, all others do not exist; a name of `failing` fails so many times first."""

    def __init__(self, names, failing=None):
        self.names, self.failing = names, dict(failing or {})
        self.asked = []
        resolver = self

        class Door(socketserver.BaseRequestHandler):
            def handle(self):
                question, sock = self.request
                sock.sendto(resolver.answer(question), self.client_address)

        self.server = socketserver.ThreadingUDPServer(("127.0.0.1", 53), Door)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        kind = struct.unpack(">H", question[at + 1 : at + 3])[0]
        name = ".".join(labels)
        self.asked.append(name)
        code, records = NO_SUCH_NAME, b""
        if self.failing.get(name, 0) > 0:
            self.failing[name] -= 1
            code = SERVER_FAILURE
        elif name in self.names:
            code = NO_ERROR
            if kind == A:
                records = b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 60, 4) + ipaddress.ip_address(self.names[name]).packed
        head = struct.pack(">HHHHHH", struct.unpack(">H", question[:2])[0], 0x8180 | code, 1, bool(records), 0, 0)
        return head + question[12 : at + 5] + records

    def in_order(self):
        """The names that were asked for, each once, in the order of their first questions."""
        return list(dict.fromkeys(self.asked))


class Proxy(Peer):
    """An HTTP proxy that leads everything to one address and writes down where the client wanted to go."""

    def __init__(self, port_behind):
        self.wanted = []
        proxy = self

        class Door(socketserver.BaseRequestHandler):
            def handle(self):
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = self.request.recv(4096)
                    if not piece:
                        return
                    head += piece
                method, target = head.split(b" ", 2)[:2]
                proxy.wanted.append(f"{method.decode()} {target.decode()}")
                behind = socket.create_connection(("127.0.0.1", port_behind))
                if method == b"CONNECT":
                    self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    path = urllib.parse.urlsplit(target.decode()).path.encode()
                    behind.sendall(head.replace(target, path, 1))
                back = threading.Thread(target=pump, args=(behind, self.request), daemon=True)
                back.start()
                pump(self.request, behind)
                back.join()
                behind.close()

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Door)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def pump(source, sink):
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Authority:
    """A certificate authority in a folder, as a company has one: `ca.crt`, and `certificate` for what it signs."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.root = self.folder / "ca.crt"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                     "-subj", "/CN=Private CA", "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)

    def certificate(self, name):
        """A file with a certificate for this host, and its key."""
        (self.folder / "leaf.ext").write_text(f"subjectAltName=DNS:{name}\nbasicConstraints=critical,CA:FALSE\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                     "-keyout", "leaf.key", "-out", "leaf.csr")  # fmt: skip
        self.openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                     "-extfile", "leaf.ext", "-out", "leaf.crt")  # fmt: skip
        both = self.folder / "leaf.pem"
        both.write_text((self.folder / "leaf.crt").read_text() + (self.folder / "leaf.key").read_text())
        return both


class ApiServer(Peer):
    """As much of a Kubernetes API server as `kubectl get pods` and a dry run need; `pods` is what it lists."""

    KINDS = {
        "/api/v1": [
            ("pods", "Pod"), ("secrets", "Secret"), ("configmaps", "ConfigMap"), ("persistentvolumeclaims", "PersistentVolumeClaim"),
        ],
        "/apis/batch/v1": [("jobs", "Job"), ("cronjobs", "CronJob")],
    }  # fmt: skip

    def __init__(self, pods):
        self.asked = []
        api = self

        class Door(BaseHTTPRequestHandler):
            def do_GET(self):
                api.asked.append(urllib.parse.unquote(self.path))
                path = urllib.parse.urlsplit(self.path).path
                group = {"groupVersion": "batch/v1", "version": "v1"}
                answers = {
                    "/api": {"kind": "APIVersions", "versions": ["v1"]},
                    "/apis": {"kind": "APIGroupList", "apiVersion": "v1",
                              "groups": [{"name": "batch", "versions": [group], "preferredVersion": group}]},
                    "/api/v1/namespaces/default/pods": {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods},
                }  # fmt: skip
                for version, kinds in ApiServer.KINDS.items():
                    verbs = ["get", "list", "create"]
                    resources = [{"name": n, "kind": k, "namespaced": True, "verbs": verbs} for n, k in kinds]
                    group_version = version.removeprefix("/apis/").removeprefix("/api/")
                    answers[version] = {"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}
                answer = answers.get(path)
                content = json.dumps(answer or {"kind": "Status", "status": "Failure", "code": 404}).encode()
                self.send_response(200 if answer else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Registry(Peer):
    """A registry of images, as far as one push and one pull go (OCI distribution specification 1.1, sections on both)."""

    def __init__(self, certificate, port=443):
        self.blobs, self.manifests, self.uploads = {}, {}, {}
        numbers = itertools.count()
        registry = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def body(self):
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)

            def answer(self, status, content=b"", **headers):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def do_GET(self):
                kind, last = self.path.split("/")[-2:]
                if self.path == "/v2/":
                    self.answer(200)
                elif kind == "blobs" and last in registry.blobs:
                    self.answer(200, registry.blobs[last], Docker_Content_Digest=last)
                elif kind == "manifests" and last in registry.manifests:
                    media_type, content = registry.manifests[last]
                    self.answer(200, content, Content_Type=media_type)
                else:
                    self.answer(404, b'{"errors": []}')

            do_HEAD = do_GET

            def do_POST(self):
                self.body()
                self.answer(202, Location=f"https://{self.headers['Host']}{self.path.rstrip('/')}/{next(numbers)}")

            def do_PATCH(self):
                registry.uploads[self.path] = content = self.body()
                self.answer(202, Location=f"https://{self.headers['Host']}{self.path}", Range=f"0-{len(content) - 1}")

            def do_PUT(self):
                content, url = self.body(), urllib.parse.urlsplit(self.path)
                if digest := urllib.parse.parse_qs(url.query).get("digest"):
                    registry.blobs[digest[0]] = content or registry.uploads[url.path]
                else:
                    registry.manifests[url.path.split("/")[-1]] = (self.headers["Content-Type"], content)
                self.answer(201)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Door)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
