"""No key and no password comes out of a server at its most talkative, whatever goes wrong.

The rest of the suite is looked at in passing: `conftest` has what every test logs, prints and writes,
`servers` what their gateways answer, `processes` what they print.
"""

import asyncio
import base64
import contextlib
import gzip
import json
import os
import signal
import socket
import traceback
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from chat_api import settings
from chat_api.cli import main
from chat_api.credentials import credential
from chat_api.stores.redis_client import RedisClient
from chat_api.translate import upstream_request
from chat_api.types import Call, Secret
from chat_api.upstreams import MAIN, upstreams
from tests.canaries import spilled, spilled_into
from tests.processes import PYTHON_APP, ROOT, Process, process
from tests.servers import NO_FILE
from tests.test_relaying import listening

AZURE_KEY = "canary-azure-key-0123456789abcdef"
CLIENT_KEY = "canary-client-key-0123456789"
EXPIRED_KEY = "canary-expired-key-0123456789"
OPERATOR_KEY = "canary-operator-key-0123456789"
WRONG_KEY = "canary-wrong-key-0123456789"
PASSWORD = "canary-redis-password"
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'


def test_canaries_are_found(tmp_path: Path) -> None:
    """A key is noticed in a text, within base64 of any alignment, in a file and in a file's name."""
    assert spilled(f"what is {CLIENT_KEY}?") == [CLIENT_KEY]
    for user in ("", "u", "us", "use", "user:"):
        assert spilled(base64.b64encode(f"{user}{PASSWORD}".encode()).decode()), user
    assert spilled("sha256: " + sha256(CLIENT_KEY.encode()).hexdigest()) == []
    (tmp_path / "config.yaml").write_text(CLIENT_KEY)
    assert spilled_into(tmp_path) == []
    (tmp_path / "usage.json").write_bytes(b"\xff" + CLIENT_KEY.encode())
    assert len(spilled_into(tmp_path)) == 1
    (tmp_path / "usage.json").unlink()


def said(status: bytes, kind: bytes, body: bytes, *headers: bytes) -> bytes:
    """An answer."""
    lines = [b"HTTP/1.1 " + status, b"content-type: " + kind, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"connection: close", b"", body])


def refusals(key: bytes) -> dict[str, bytes]:
    """The ways in which an upstream repeats a key, by the model that is asked for."""
    openai = b'{"error":{"message":"Incorrect API key provided: %s.","type":"t","param":"%s","code":"c"}}' % (key, key)
    front = b'{"error":{"code":"401","message":"Access denied due to invalid subscription key %s."}}' % key
    json_type, events = b"application/json", b"text/event-stream"
    return {
        "as-openai-does": said(b"401 No", json_type, openai),
        "as-azure-does": said(b"401 No", json_type, front),
        "in-a-page": said(b"403 No", b"text/html", b"<h1>No</h1><p>%s" % key),
        "in-a-text": said(b"500 No", b"text/plain", b"no such key: " + key),
        "in-gzip": said(b"401 No", json_type, gzip.compress(openai), b"content-encoding: gzip"),
        "in-headers": said(
            b"429 No", json_type, openai, *[
                name + b": " + key
                for name in (b"x-ms-key", b"x-request-id", b"apim-request-id", b"retry-after", b"openai-organization",
                             b"x-ratelimit-remaining-requests", b"www-authenticate", b"set-cookie", b"location")
            ],
        ),
        "in-the-status": said(b"401 " + key, json_type, openai),
        "in-a-type": said(b"401 No", b"text/" + key, openai),
        "in-a-200": said(b"200 OK", json_type, openai),
        "in-a-200-that-is-none": said(b"200 OK", b"text/html", key),
        "in-an-event": said(b"200 OK", events, b"data: " + openai + b"\n\n"),
        "in-a-late-event": said(b"200 OK", events, WORD + b"data: " + openai + b"\n\n"),
        "in-a-late-event-that-is-none": said(b"200 OK", events, WORD + b"event: error\ndata: " + key + b"\n\n"),
        "in-a-redirect": said(b"302 Found", b"text/plain", b"", b"location: https://" + key),
        "in-no-http": b"nonsense " + key + b"\r\n\r\n",
        "in-half-a-header": b"HTTP/1.1 200 OK\r\n" + key + b"\x00\r\n\r\n",
        "in-a-length": b"HTTP/1.1 200 OK\r\ncontent-length: " + key + b"\r\n\r\n",
        "in-a-chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + key + b"\r\n",
        "cut-short": said(b"401 No", json_type, openai)[:-20],
        "too-late": said(b"429 No", json_type, openai, b"retry-after: 86400"),
    }  # fmt: skip


MODELS = tuple(refusals(b""))


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that refuses whatever it is asked, and repeats the key."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = await reader.readexactly(int(fields.get(b"content-length", 0)))
        key = fields.get(b"api-key") or fields[b"authorization"].split()[1]
        model = (
            head.split(b"/deployments/")[1].split(b"/")[0].decode()
            if b"/deployments/" in head
            else json.loads(body)["model"]
        )
        writer.write(refusals(key)[model])
        await writer.drain()
    writer.close()


async def store(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that is no Redis of our days: it repeats whatever it is sent."""
    with contextlib.suppress(ConnectionError):
        while asked := await reader.read(65536):
            writer.write(b"-ERR unknown command 'HELLO', with args beginning with: %s\r\n" % b" ".join(asked.split()))
    writer.close()


class Place(NamedTuple):
    """A gateway's process, its port, and where its files are."""

    process: Process
    port: int
    folder: Path


CONFIG = """\
client_keys:
  - name: alice
    sha256: {client}
    requests: 1000/minute
  - name: eve
    sha256: {expired}
    expires: 2020-01-01
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that says all it has to say, with every kind of key, an upstream and a store that repeat theirs."""
    folder = tmp_path_factory.mktemp("canary")
    digests = {
        name: sha256(key.encode()).hexdigest() for name, key in (("client", CLIENT_KEY), ("expired", EXPIRED_KEY))
    }
    (folder / "config.yaml").write_text(CONFIG.format(**digests))
    with listening(upstream) as upstream_port, listening(store) as store_port:
        environ = {
            "ENDPOINT": f"http://127.0.0.1:{upstream_port}",
            "KEY": AZURE_KEY,
            "DEPLOYMENT_NAME": MODELS[0],
            "CLIENT_KEYS": "canary-other-client-key",
            "OPERATOR_KEY": OPERATOR_KEY,
            "CONFIG_FILE": str(folder / "config.yaml"),
            "STORE_URL": f"redis://alice:{PASSWORD}@127.0.0.1:{store_port}/0?password={PASSWORD}",
            "OPENAI_API_KEY": "canary-openai-key",
            "LOG_LEVEL": "debug",
            "TMPDIR": str(folder),
            "USAGE_FILE": str(folder / "usage.json"),
        }
        before = set(os.listdir(ROOT))
        with process(*PYTHON_APP, **environ) as running:
            port = int(running.wait_for(r"listens at http://127.0.0.1:(\d+)")[1])
            yield Place(running, port, folder)
            running.signal(signal.SIGTERM)
            assert running.wait() == 0
        assert spilled(running.output) == []
        assert spilled_into(folder) == []
        new = {name for name in os.listdir(ROOT) if not name.startswith(".coverage")} - before
        assert new <= {".hypothesis"}


def exchange(place: Place, raw: bytes) -> bytes:
    """All that comes back for some bytes."""
    with socket.create_connection(("127.0.0.1", place.port), timeout=10) as sock:
        sock.sendall(raw)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65536):
                received += part
    return received


def request(path: str, body: dict[str, Any] | None = None, *headers: str, method: str = "POST") -> bytes:
    """A request, after whose answer the connection ends."""
    raw = json.dumps(body).encode() if body is not None else b""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close", *headers]
    lines += ["content-type: application/json", f"content-length: {len(raw)}"]
    return "\r\n".join([*lines, "", ""]).encode() + raw


CHAT = {"messages": [{"role": "user", "content": "hello"}]}
OURS = f"authorization: Bearer {CLIENT_KEY}"
PATHS: dict[str, tuple[str, dict[str, Any], str]] = {
    "relayed": ("/v1/chat/completions", {**CHAT}, "accept: */*"),
    "relayed-stream": ("/v1/chat/completions", {**CHAT, "stream": True}, "accept: */*"),
    "relayed-gzip": ("/v1/embeddings", {"input": "x"}, "accept-encoding: gzip"),
    "simple": ("/v1/gpt/chat", {"prompt": "hello"}, "accept: */*"),
    "simple-events": ("/v1/gpt/chat", {"prompt": "hello", "stream": True}, "accept: */*"),
    "simple-text": ("/v1/gpt/chat", {"prompt": "hello", "stream": True}, "accept: text/plain"),
}


def answers(place: Place, *requests: bytes) -> list[str]:
    """The answers to requests, none of which repeats a key."""
    got = [exchange(place, one).decode("latin-1") for one in requests]
    for asked, answer in zip(requests, got, strict=True):
        assert answer.startswith("HTTP/1.1 "), asked
        assert not spilled(answer), (asked, answer)
    return got


@pytest.mark.parametrize("path", PATHS)
def test_upstream_that_repeats_our_key(place: Place, path: str) -> None:
    """However an upstream repeats the key that it refuses, no error and no header of one has it."""
    where, body, header = PATHS[path]
    answers(place, *[request(where, {**body, "model": model}, OURS, header) for model in MODELS])


BASIC = base64.b64encode(f"user:{WRONG_KEY}".encode()).decode()
PRESENTED = {
    "none": "x-nothing: at all",
    "wrong-bearer": f"authorization: Bearer {WRONG_KEY}",
    "wrong-api-key": f"api-key: {WRONG_KEY}",
    "expired": f"api-key: {EXPIRED_KEY}",
    "our-own": f"api-key: {AZURE_KEY}",
    "operators": f"api-key: {OPERATOR_KEY}",
    "basic": f"authorization: Basic {BASIC}",
    "no-scheme": f"authorization: {WRONG_KEY}",
    "no-key": f"authorization: Bearer {WRONG_KEY}\u00ff",
    "subprotocol": f"sec-websocket-protocol: realtime, openai-insecure-api-key.{WRONG_KEY}",
    "cookie": f"cookie: key={WRONG_KEY}",
    "referer": f"referer: https://ui.example/?key={WRONG_KEY}",
}


@pytest.mark.parametrize("presented", PRESENTED)
def test_whatever_a_caller_presents(place: Place, presented: str) -> None:
    """A key that is refused, or that is not where keys are, is repeated to nobody, wherever it is presented."""
    header = PRESENTED[presented]
    calls = [request(where, {**body, "model": MODELS[0]}, header) for where, body, _ in PATHS.values()]
    paths = (
        "/",
        "/status",
        "/usage",
        "/metrics",
        "/ready",
        "/health",
        "/nowhere",
        "/v1/models",
        "/v1/nowhere",
        "/v1/realtime",
    )
    gets = [request(where, None, header, method="GET") for where in paths]
    upgrade = request("/v1/realtime", None, header, "upgrade: websocket", method="GET")
    for answer in answers(place, *calls):
        assert answer[9:12] in ("401", "403"), answer
    answers(place, *gets, upgrade, request("/status", None, header, method="TRACE"))


MALFORMED = {
    "key-in-the-query": request(f"/v1/chat/completions?api-key={WRONG_KEY}", {**CHAT}),
    "key-in-the-query-of-nothing": request(f"/nowhere?api-key={WRONG_KEY}&code={WRONG_KEY}", None, method="GET"),
    "no-json": request("/v1/chat/completions", None, OURS) + b"{",
    "no-such-model": request("/v1/chat/completions", {**CHAT, "model": 7}, OURS),
    "no-prompt": request("/v1/gpt/chat", {}, OURS),
    "no-header": f"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{OURS}\r\nnonsense\r\n\r\n".encode(),
    "no-method": f"NONSENSE / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{OURS}\r\n\r\n".encode(),
    "no-length": f"POST / HTTP/1.1\r\nhost: localhost\r\n{OURS}\r\ncontent-length: x\r\n\r\n".encode(),
    "control-character": f"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{OURS}\x00\r\n\r\n".encode(),
    "too-large": f"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{OURS}{'x' * 70_000}\r\n\r\n".encode(),
    "other-host": f"GET /status HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n{OURS}\r\n\r\n".encode(),
    "absolute-form": request(f"http://user:{WRONG_KEY}@localhost/v1/models", None, method="GET"),
}


def test_requests_that_are_none(place: Place) -> None:
    """What is wrong with a request is said without what else is in it."""
    answers(place, *MALFORMED.values())


def test_what_operators_are_told(place: Place) -> None:
    """Whoever may ask for the state and the usage of a server gets names, and no key and no password."""
    asked = [request(path, None, f"api-key: {OPERATOR_KEY}", method="GET") for path in ("/status", "/usage", "/ready")]
    statuses = [answer[9:12] for answer in answers(place, *asked)]
    assert statuses == ["200", "503", "200"]  # nobody keeps the usage


def test_clients_that_leave(place: Place) -> None:
    """A call that nobody waits for is logged without its key."""
    for where, body, header in PATHS.values():
        with socket.create_connection(("127.0.0.1", place.port)) as sock:
            sock.sendall(request(where, {**body, "model": "as-openai-does"}, OURS, header))


SETTINGS = {
    "ENDPOINT": "https://r.openai.azure.com",
    "KEY": AZURE_KEY,
    "DEPLOYMENT_NAME": "d",
    "CLIENT_KEYS": f"{CLIENT_KEY},{WRONG_KEY}",
    "OPERATOR_KEY": OPERATOR_KEY,
    "STORE_URL": f"redis://alice:{PASSWORD}@127.0.0.1:1/0",
    "OPENAI_BASE_URL": "https://api.openai.com",
    "OPENAI_API_KEY": f"{AZURE_KEY},{WRONG_KEY}",
    "UPSTREAM_PROXY": f"http://user:{PASSWORD}@127.0.0.1:1",
}


@pytest.mark.parametrize("command", [["check"], ["keys", "list"], ["usage"], ["usage", "--csv"], ["serve"]])
def test_commands_show_no_key(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No command prints a key that is set; one that cannot reach the store, or listen, says so without its password."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for name, value in {**SETTINGS, "HTTP_PORT": str(taken.getsockname()[1])}.items():
            monkeypatch.setenv(name, value)
        shown = CliRunner().invoke(main, command)

    assert shown.output
    assert not spilled(shown.output + repr(shown.exception)), shown.output


WRONG: dict[str, dict[str, str]] = {
    "key-with-a-line-end": {"KEY": f"{AZURE_KEY}\n{WRONG_KEY}"},
    "key-with-a-space": {"KEY": f"{AZURE_KEY} {WRONG_KEY}"},
    "key-in-other-letters": {"KEY": f"{AZURE_KEY}\u20ac", "CLIENT_KEYS": f"{CLIENT_KEY}\u20ac"},
    "more-keys-than-endpoints": {"KEY": f"{AZURE_KEY},{WRONG_KEY}"},
    "client-key-twice": {"CLIENT_KEYS": f"{CLIENT_KEY},{CLIENT_KEY}"},
    "client-keys-that-are-none": {"CLIENT_KEYS": f"{CLIENT_KEY} {WRONG_KEY}, \x01{WRONG_KEY}"},
    "operator-key-that-is-none": {"OPERATOR_KEY": f"{OPERATOR_KEY} \x01"},
    "operator-key-of-a-client": {"OPERATOR_KEY": CLIENT_KEY},
    "store-of-another-kind": {"STORE_URL": f"mysql://u:{PASSWORD}@h/0"},
    "store-without-a-host": {"STORE_URL": f"redis://u:{PASSWORD}@/0"},
    "store-without-a-port": {"STORE_URL": f"redis://u:{PASSWORD}@h:port/0"},
    "store-with-a-hash": {"STORE_URL": f"redis://u:{PASSWORD}#x@h:1/0"},
    "store-with-a-path": {"STORE_URL": f"redis://u:{PASSWORD}@h:1/x"},
    "store-with-a-slash": {"STORE_URL": f"redis://u:{PASSWORD}/x@h:1/0"},
    "store-with-a-bracket": {"STORE_URL": f"redis://u:{PASSWORD}@[h:1/0"},
    "store-that-is-a-password": {"STORE_URL": PASSWORD},
    "proxy-of-another-kind": {"UPSTREAM_PROXY": f"ftp://u:{PASSWORD}@h:1"},
    "proxy-without-a-port": {"UPSTREAM_PROXY": f"http://u:{PASSWORD}@h:port"},
    "proxy-with-a-slash": {"UPSTREAM_PROXY": f"http://u:{PASSWORD}/x@h:1"},
    "proxies": {"UPSTREAM_PROXY": f"http://u:{PASSWORD}@h:1,http://u:{PASSWORD}@h:2,nonsense"},
    "socks-proxy": {"UPSTREAM_PROXY": "", "UPSTREAM_SOCKS_PROXY": f"socks9://u:{PASSWORD}@h:1"},
    "both-proxies": {"UPSTREAM_SOCKS_PROXY": f"socks5://u:{PASSWORD}@h:1"},
    "proxy-of-the-machine": {"UPSTREAM_PROXY": "", "HTTPS_PROXY": f"ftp://u:{PASSWORD}@h:port"},
    "password-in-a-server": {"OPENAI_BASE_URL": f"https://u:{PASSWORD}@api.openai.com"},
    "password-in-the-endpoint": {"ENDPOINT": f"https://u:{PASSWORD}@r.openai.azure.com"},
    "key-in-the-endpoint": {"ENDPOINT": f"https://r.openai.azure.com/openai?api-key={AZURE_KEY}"},
    "keys-of-too-many-servers": {"OPENAI_BASE_URL": "", "OPENAI_API_KEY": f"{AZURE_KEY},{WRONG_KEY}\x01"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_settings_that_are_wrong(wrong: str) -> None:
    """What is said of a setting that holds a key or a password does not quote it; nor do settings show theirs."""
    try:
        read = settings.load({**SETTINGS, **WRONG[wrong]}, NO_FILE)
    except settings.SettingsError as error:
        said_of_it = "".join(traceback.format_exception(error))
    else:
        said_of_it = f"{read!r} {read.warnings}"
    assert not spilled(said_of_it), said_of_it


def as_client(**fields: str) -> str:
    """A file with one client key."""
    return "client_keys:\n  - {name: alice, " + ", ".join(f"{name}: {value}" for name, value in fields.items()) + "}\n"


DIGEST = sha256(CLIENT_KEY.encode()).hexdigest()
HERE = "endpoint: https://x.y, models: [m]"
FILES = {
    "plain-key": as_client(key=CLIENT_KEY),
    "key-for-its-digest": as_client(sha256=CLIENT_KEY),
    "no-mapping": f"client_keys:\n  - {CLIENT_KEY}\n",
    "no-list": f"client_keys: {CLIENT_KEY}\n",
    "no-yaml": f"deployments:\n  - {{name: d, key: {AZURE_KEY}\n",
    "key-of-no-text": f"deployments:\n  - {{name: d, {HERE}, key: [{AZURE_KEY}]}}\n",
    "alias": f"deployments:\n  - {{name: d, {HERE}, key: *{AZURE_KEY}}}\n",
    "tab": f"deployments:\n\t- key: {AZURE_KEY}\n",
    "quote": f'deployments:\n  - key: "{AZURE_KEY}\\q"\n',
    "unfinished-quote": f'deployments:\n  - key: "{AZURE_KEY}\n',
    "colon": f"deployments:\n  - key: {AZURE_KEY}: {WRONG_KEY}\n",
    "key-with-a-space": f"deployments:\n  - {{name: d, {HERE}, key: {AZURE_KEY} {WRONG_KEY}}}\n",
    "password-in-an-endpoint": f"deployments:\n  - {{name: d, endpoint: 'https://u:{PASSWORD}@x.y', models: [m]}}\n",
}


@pytest.mark.parametrize("wrong", FILES)
def test_files_that_are_wrong(wrong: str, tmp_path: Path) -> None:
    """What is said of a config file quotes no key, not even one that is out of place."""
    (tmp_path / "config.yaml").write_text(FILES[wrong])
    with pytest.raises(settings.SettingsError) as caught:
        settings.load({**SETTINGS, "CONFIG_FILE": str(tmp_path / "config.yaml")}, NO_FILE)
    said_of_it = "".join(traceback.format_exception(caught.value))
    assert not spilled(said_of_it), said_of_it


@pytest.mark.parametrize(
    "line",
    [f"KEY='{AZURE_KEY}", f'KEY="{AZURE_KEY}', f"KEY {AZURE_KEY}", f"KEYS={AZURE_KEY}", AZURE_KEY, f"={AZURE_KEY}"],
)
def test_env_files_that_are_wrong(line: str, tmp_path: Path) -> None:
    """A line that cannot be read, or a setting that is none, is told of by its number or name."""
    (tmp_path / ".env").write_text(f"DEPLOYMENT_NAME=d\n{line}\nHTTP_PORT=eighty\n")
    with pytest.raises(settings.SettingsError) as caught:
        settings.load({}, tmp_path / ".env")
    assert not spilled("".join(traceback.format_exception(caught.value)))


def test_values_that_print() -> None:
    """Whatever of a server somebody prints, it shows no key: settings, upstreams, calls, requests, clients."""
    read = settings.load({**SETTINGS, "UPSTREAM_PROXY": ""}, NO_FILE)
    tables = upstreams(read)
    deployment = tables[MAIN].deployments[0]
    call = Call("chat/completions", "m", b"{}", False, credential=Secret(CLIENT_KEY))
    sent, _ = upstream_request(call, deployment, credential(call, deployment))
    things = [read, tables, deployment, call, sent, read.client_keys, RedisClient(Secret(SETTINGS["STORE_URL"]), ())]
    for thing in things:
        assert not spilled(f"{thing!r} {thing}"), type(thing)
