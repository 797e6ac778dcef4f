"""Calls into upstream requests: URL, headers and body of every operation at every kind of upstream."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import msgspec
import pytest
from msgspec import structs

from chat_api.errors import RequestError
from chat_api.multipart import FieldFinder
from chat_api.operations import is_unrouted
from chat_api.routing import read_routing
from chat_api.spool import Form, Upload
from chat_api.translate import WITHOUT_USAGE, adapted_body, model_for_body, tells_usage, upstream_request, url
from chat_api.types import Adaptation, Call, Deployment, Headers, UpstreamRequest

BASE_URL = "https://r.openai.azure.com"
KEY = (b"api-key", b"k")
RENAMED = Adaptation("max_tokens", "max_completion_tokens")
NO_TEMPERATURE = Adaptation("temperature", None)
NO_TOP_P = Adaptation("top_p", None)


def deployment(name: str = "d", api_version: str = "2024-10-21", base_url: str = BASE_URL) -> Deployment:
    """A deployment of one resource."""
    return Deployment(name, base_url, api_version)


def call(body: bytes = b"{}", *, stream: bool = False, defaulted: tuple[str, ...] = ()) -> Call:
    """A chat call with that body."""
    return Call("chat/completions", None, body, stream, defaulted=frozenset(defaulted))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(
            deployment(),
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            id="classic",
        ),
        pytest.param(
            deployment(api_version="2025-04-01-preview"),
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2025-04-01-preview",
            id="classic-preview",
        ),
        pytest.param(
            deployment(base_url="https://apim.example.com/inference"),
            "https://apim.example.com/inference/openai/deployments/d/chat/completions?api-version=2024-10-21",
            id="classic-behind-apim",
        ),
        pytest.param(
            deployment(api_version="v1"), "https://r.openai.azure.com/openai/v1/chat/completions", id="v1-no-version"
        ),
        pytest.param(
            deployment(api_version="preview"),
            "https://r.openai.azure.com/openai/v1/chat/completions?api-version=preview",
            id="v1-preview",
        ),
        pytest.param(
            deployment(api_version="v1", base_url="https://r.services.ai.azure.com/api/projects/p"),
            "https://r.services.ai.azure.com/api/projects/p/openai/v1/chat/completions",
            id="v1-project",
        ),
        pytest.param(
            deployment("../../x", "v1"), "https://r.openai.azure.com/openai/v1/chat/completions", id="v1-odd-name"
        ),
    ],
)
def test_url(target: Deployment, expected: str) -> None:
    """The classic API has the deployment in its path and a version; v1 has neither, unless it is a preview."""
    assert url(call(), target) == expected


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        pytest.param("gpt-4.1_mini~x", "gpt-4.1_mini~x", id="unreserved"),
        pytest.param("a b", "a%20b", id="space"),
        pytest.param("dep/1", "dep%2F1", id="slash"),
        pytest.param("ü", "%C3%BC", id="not-ascii"),
        pytest.param("a?b", "a%3Fb", id="question-mark"),
        pytest.param("a#b", "a%23b", id="hash"),
        pytest.param("a%2Fb", "a%252Fb", id="percent"),
        pytest.param("%2e%2e", "%252e%252e", id="encoded-dots"),
        pytest.param("...", "...", id="three-dots"),
        pytest.param("a;b&c=d@e:f+g", "a%3Bb%26c%3Dd%40e%3Af%2Bg", id="delimiters"),
    ],
)
def test_deployment_is_quoted(name: str, quoted: str) -> None:
    """A deployment's name is one path segment, whatever it holds."""
    assert url(call(), deployment(name)) == (
        f"https://r.openai.azure.com/openai/deployments/{quoted}/chat/completions?api-version=2024-10-21"
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(".", id="dot"),
        pytest.param("..", id="dots"),
        pytest.param("../d", id="dots-and-slash"),
        pytest.param("d\\..", id="backslash-and-dots"),
        pytest.param("", id="empty"),
        pytest.param("a//b", id="empty-segment"),
        pytest.param("d" * 129, id="long"),
        pytest.param("a\nb", id="line-feed"),
        pytest.param("a\r\nb", id="crlf"),
        pytest.param("\x00", id="nul"),
        pytest.param("d\x7f", id="delete"),
        pytest.param("d\u2028", id="line-separator"),
        pytest.param("d\ud800", id="lone-surrogate"),
    ],
)
def test_deployment_is_refused(name: str) -> None:
    """Dot segments and control characters are no deployment's name: the caller's `model` is at fault."""
    with pytest.raises(RequestError) as caught:
        url(call(), deployment(name))
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "model", "invalid_model")
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("stream", "accept"),
    [pytest.param(False, b"application/json", id="whole"), pytest.param(True, b"text/event-stream", id="stream")],
)
def test_headers(stream: bool, accept: bytes) -> None:
    """The request has these four headers and no other: nothing of the caller's goes to Azure."""
    request, _ = upstream_request(call(stream=stream), deployment(), KEY)
    assert request.headers == (
        (b"content-type", b"application/json"),
        (b"accept", accept),
        (b"accept-encoding", b"identity"),
        (b"api-key", b"k"),
    )


def test_classic_request() -> None:
    """A classic request carries the call's body itself, whose model Azure takes from the path."""
    body = b'{"messages": [], "model": "other"}'
    request, applied = upstream_request(call(body), deployment(), KEY)
    assert request.method == "POST"
    assert request.url == "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21"
    assert request.body is body
    assert applied == ()


@pytest.mark.parametrize("api_version", ["v1", "preview"])
@pytest.mark.parametrize(
    ("body", "sent"),
    [
        pytest.param(b'{"messages": []}', b'{"model":"my \\"d\\"","messages":[]}', id="no-model"),
        pytest.param(b'{"model": null, "n": 1}', b'{"model":"my \\"d\\"","n":1}', id="null-model"),
        pytest.param(b'{"model":"other","seed":1.50}', b'{"model":"my \\"d\\"","seed":1.50}', id="other-model"),
    ],
)
def test_v1_request(api_version: str, body: bytes, sent: bytes) -> None:
    """A v1 request names the deployment as the body's `model`; the other members stay as written."""
    request, applied = upstream_request(call(body), deployment('my "d"', api_version), KEY)
    assert request.body == sent
    assert applied == ()


def test_request_hides_the_key() -> None:
    """A request's own text shows neither its headers nor its body."""
    request, _ = upstream_request(call(b'{"prompt":"SECRET"}'), deployment(), (b"api-key", b"SECRET"))
    assert "SECRET" not in repr(request)


def test_adapted_request() -> None:
    """A request says which of the adaptations changed it."""
    body = b'{"max_tokens":5,"temperature":1}'
    request, applied = upstream_request(call(body), deployment(), KEY, (RENAMED, NO_TEMPERATURE))
    assert request.body == b'{"temperature":1,"max_completion_tokens":5}'
    assert applied == (RENAMED,)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"10", id="integer"),
        pytest.param(b"10.0", id="float"),
        pytest.param(b"1.50e+2", id="exponent"),
        pytest.param(b"123456789012345678901234567890", id="big-integer"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"\\u00e4\\/"', id="escapes"),
        pytest.param(b'{"a" : [1,  2.50]}', id="spaces"),
    ],
)
def test_rename_keeps_the_value(value: bytes) -> None:
    """A renamed parameter keeps its value byte for byte, and so do its neighbours."""
    body, applied = adapted_body(call(b'{"max_tokens":' + value + b',"seed":1.0}'), (RENAMED,))
    assert body == b'{"seed":1.0,"max_completion_tokens":' + value + b"}"
    assert applied == (RENAMED,)


@pytest.mark.parametrize(
    ("adaptations", "defaulted", "expected", "applied"),
    [
        pytest.param((RENAMED,), (), b'{"temperature":1,"top_p":1,"max_completion_tokens":5}', (RENAMED,), id="rename"),
        pytest.param(
            (RENAMED,),
            ("max_tokens",),
            b'{"temperature":1,"top_p":1,"max_completion_tokens":5}',
            (RENAMED,),
            id="rename-default",
        ),
        pytest.param(
            (NO_TEMPERATURE,), ("temperature",), b'{"max_tokens":5,"top_p":1}', (NO_TEMPERATURE,), id="drop-default"
        ),
        pytest.param((NO_TEMPERATURE,), (), b'{"max_tokens":5,"temperature":1,"top_p":1}', (), id="keep-callers"),
        pytest.param(
            (NO_TEMPERATURE, NO_TOP_P),
            ("top_p",),
            b'{"max_tokens":5,"temperature":1}',
            (NO_TOP_P,),
            id="drop-default-keep-callers",
        ),
        pytest.param(
            (RENAMED, NO_TEMPERATURE, NO_TOP_P),
            ("temperature", "top_p"),
            b'{"max_completion_tokens":5}',
            (RENAMED, NO_TEMPERATURE, NO_TOP_P),
            id="all",
        ),
        pytest.param(
            (RENAMED, RENAMED), (), b'{"temperature":1,"top_p":1,"max_completion_tokens":5}', (RENAMED,), id="twice"
        ),
    ],
)
def test_adaptations(
    adaptations: tuple[Adaptation, ...],
    defaulted: tuple[str, ...],
    expected: bytes,
    applied: tuple[Adaptation, ...],
) -> None:
    """A rename always applies; a parameter is left out only if it is a default, never if it is the caller's."""
    original = call(b'{"max_tokens":5,"temperature":1,"top_p":1}', defaulted=defaulted)
    assert adapted_body(original, adaptations) == (expected, applied)


def test_both_names() -> None:
    """A parameter is not renamed over one that the caller sent under the new name."""
    body = b'{"max_tokens":5,"max_completion_tokens":7}'
    assert adapted_body(call(body), (RENAMED,)) == (body, ())


def test_model_and_adaptation() -> None:
    """On v1 the model is set beside what was adapted."""
    body = b'{"model":"x","max_tokens":5}'
    request, applied = upstream_request(call(body), deployment(api_version="v1"), KEY, (RENAMED,))
    assert request.body == b'{"model":"d","max_completion_tokens":5}'
    assert applied == (RENAMED,)


def test_nothing_to_adapt() -> None:
    """Without adaptations the body goes on as the very bytes that came, spaces, doubles and all."""
    body = b' { "max_tokens" : 5, "a":1, "a":2 } '
    sent, applied = adapted_body(call(body), ())
    assert sent is body
    assert applied == ()


@pytest.mark.parametrize(
    ("body", "adaptation"),
    [
        pytest.param(b'{"messages": [], "n": 1}', RENAMED, id="parameter-absent"),
        pytest.param(b'{"max_tokens": 5, "max_completion_tokens": 7}', RENAMED, id="both-names"),
        pytest.param(b'{"temperature": 1}', NO_TEMPERATURE, id="callers-own"),
    ],
)
def test_no_adaptation_applies(body: bytes, adaptation: Adaptation) -> None:
    """A body that needs no change is not touched, whatever the deployment taught."""
    sent, applied = adapted_body(call(body), (adaptation,))
    assert sent is body
    assert applied == ()


CLASSIC = Deployment("d", BASE_URL, "2024-10-21")
V1 = Deployment("d", BASE_URL, "v1")
PREVIEW = Deployment("d", BASE_URL, "preview")
OPENAI = Deployment("d", "http://localhost:8000", "v1", kind="openai")
UPSTREAMS = [
    pytest.param("classic", CLASSIC, id="classic"),
    pytest.param("v1", V1, id="v1"),
    pytest.param("preview", PREVIEW, id="preview"),
    pytest.param("openai", OPENAI, id="openai"),
]
AUDIO = "2025-04-01-preview"


class Row(NamedTuple):
    """An operation: how it is asked for, whether a deployment's path has it, where v1 has it not, what names its model.

    `model` is "required" or "optional" where the body may name it, "" where nothing of it is read.
    """

    method: str
    operation: str
    scoped: bool = False
    dated: str = ""
    model: str = ""


ROWS = [
    Row("POST", "chat/completions", True, "", "required"),
    Row("POST", "completions", True, "2024-10-21", "required"),
    Row("POST", "embeddings", True, "", "required"),
    Row("POST", "audio/speech", True, AUDIO, "required"),
    Row("POST", "audio/transcriptions", True, AUDIO, "required"),
    Row("POST", "audio/translations", True, AUDIO, "required"),
    Row("POST", "images/generations", True, "", "required"),
    Row("POST", "images/edits", True, "", "required"),
    Row("POST", "images/variations", True, "", "required"),
    Row("POST", "extensions/chat/completions", True, "2023-12-01-preview", "required"),
    Row("POST", "responses", False, "", "required"),
    Row("POST", "assistants", False, "", "required"),
    Row("POST", "responses/resp_1/cancel", False, "", "optional"),
    Row("POST", "threads", False, "", "optional"),
    Row("POST", "threads/t/runs", False, "", "optional"),
    Row("POST", "realtime/client_secrets", False, "", "optional"),
    Row("POST", "moderations", False, "", "optional"),
    Row("GET", "responses/resp_1"),
    Row("DELETE", "responses/resp_1"),
    Row("GET", "responses/resp_1/input_items"),
    Row("GET", "files"),
    Row("POST", "files"),
    Row("GET", "files/f/content"),
    Row("POST", "uploads"),
    Row("POST", "uploads/u/parts"),
    Row("POST", "batches"),
    Row("POST", "fine_tuning/jobs"),
    Row("GET", "models"),
    Row("GET", "models/ft%3Agpt"),
    Row("POST", "vector_stores"),
    Row("POST", "evals"),
    Row("POST", "containers"),
]
OPERATIONS = [pytest.param(row, id=f"{row.method}-{row.operation}") for row in ROWS]

# What nothing may be lost of: spaces, numbers that no float holds, escapes, the order of the members.
REST = (
    b'"unknown":{"b" : 1.0,\t"a":[1 ,  2.50]},"big":123456789012345678901234567890,"one":1,"one_point":1.0,'
    b'"huge":1e400,"tiny":-0.0e-999,"escapes":"\\u00e9\\/\\ud83d\\ude00","plain":"\xc3\xa9/","stream":false'
)
MODEL_OF_CALLER = b'{"model":"asked",' + REST + b"}"
MODEL_OF_UPSTREAM = b'{"model":"d",' + REST + b"}"
CALLERS: Headers = ((b"content-type", b"application/json"), (b"user-agent", b"u"), (b"accept-encoding", b"gzip, br"))


def relayed(row: Row, body: bytes = b"", *, query: str = "", headers: Headers = CALLERS) -> Call:
    """The call that a relayed request makes."""
    model = None if is_unrouted(row.method, row.operation) else read_routing(body).model
    return Call(
        row.operation,
        model,
        body,
        False,
        method=row.method,
        query=query,
        headers=headers,
        verbatim=True,
        model_in_body=model,
    )


def sent(call: Call, target: Deployment) -> UpstreamRequest:
    """The request for a call, which nothing was adapted in."""
    request, applied = upstream_request(call, target, KEY)
    assert applied == ()
    return request


def expected_url(kind: str, row: Row, query: str = "") -> str:
    """Where Azure's documentation has the operation, with that query before what is ours."""
    dated = {"classic": "2024-10-21", "v1": row.dated, "preview": row.dated}.get(kind, "")
    version = f"api-version={dated}" if dated else "api-version=preview" if kind == "preview" else ""
    if kind == "openai":
        path = f"http://localhost:8000/v1/{row.operation}"
    elif not dated:
        path = f"{BASE_URL}/openai/v1/{row.operation}"
    else:
        path = f"{BASE_URL}/openai/{'deployments/d/' if row.scoped else ''}{row.operation}"
    whole = "&".join(part for part in (query, version) if part)
    return f"{path}?{whole}" if whole else path


@pytest.mark.parametrize("query", ["", "limit=2&after=a%20b&include[]=x"], ids=["no-query", "query"])
@pytest.mark.parametrize(("kind", "target"), UPSTREAMS)
@pytest.mark.parametrize("row", OPERATIONS)
def test_operation_url(row: Row, kind: str, target: Deployment, query: str) -> None:
    """Every operation is asked for where its upstream has it; the query goes on, the api-version is ours."""
    body = MODEL_OF_CALLER if row.method == "POST" else b""
    request = sent(relayed(row, body, query=query), target)
    assert (request.method, request.url) == (row.method, expected_url(kind, row, query))


@pytest.mark.parametrize(("kind", "target"), UPSTREAMS)
@pytest.mark.parametrize("row", OPERATIONS)
def test_operation_body(row: Row, kind: str, target: Deployment) -> None:
    """A body is untouched where the path names the model or none is read; else only its `model` is another."""
    body = MODEL_OF_CALLER if row.method == "POST" else b""
    sent_body = sent(relayed(row, body), target).body
    by_path = row.scoped and (kind == "classic" or (kind != "openai" and row.dated))
    if by_path or not row.model:
        assert sent_body is body
    else:
        assert sent_body == MODEL_OF_UPSTREAM


@pytest.mark.parametrize(("kind", "target"), UPSTREAMS)
@pytest.mark.parametrize("row", OPERATIONS)
def test_operation_headers(row: Row, kind: str, target: Deployment) -> None:
    """The caller's headers go on as they are, then one accept-encoding, then the credential that was given."""
    request = sent(relayed(row, MODEL_OF_CALLER if row.method == "POST" else b""), target)
    assert request.headers == (
        (b"content-type", b"application/json"),
        (b"user-agent", b"u"),
        (b"accept-encoding", b"gzip"),
        KEY,
    )


@pytest.mark.parametrize(("kind", "target"), UPSTREAMS)
@pytest.mark.parametrize("row", [row for row in OPERATIONS if isinstance(row.values[0], Row) and row.values[0].model])
def test_operation_without_model(row: Row, kind: str, target: Deployment) -> None:
    """A body without a model gets the deployment's as its first member, where the operation cannot do without."""
    body = b"{" + REST + b"}"
    sent_body = sent(relayed(row, body), target).body
    by_path = row.scoped and (kind == "classic" or (kind != "openai" and row.dated))
    if by_path or row.model == "optional":
        assert sent_body is body
    else:
        assert sent_body == MODEL_OF_UPSTREAM


@pytest.mark.parametrize(("kind", "target"), UPSTREAMS)
@pytest.mark.parametrize("row", OPERATIONS)
def test_operation_model_is_right(row: Row, kind: str, target: Deployment) -> None:
    """A body whose model is the deployment's already goes on as the very bytes that came."""
    body = b' {"n" : 1,  "n" : 2, "model" : "d" } ' if row.method == "POST" else b""
    assert sent(relayed(row, body), target).body is body


@pytest.mark.parametrize(
    ("accepted", "stream", "coding"),
    [
        pytest.param(b"gzip", False, b"gzip", id="gzip"),
        pytest.param(b"br, GZIP;q=0.5", False, b"gzip", id="gzip-among-others"),
        pytest.param(b"*", False, b"gzip", id="anything"),
        pytest.param(b"br, zstd", False, b"identity", id="others-only"),
        pytest.param(b"gzip;q=0", False, b"identity", id="gzip-refused"),
        pytest.param(b"", False, b"identity", id="empty"),
        pytest.param(None, False, b"identity", id="no-header"),
        pytest.param(b"gzip", True, b"identity", id="stream"),
    ],
)
@pytest.mark.parametrize(("kind", "target"), UPSTREAMS)
def test_accept_encoding(accepted: bytes | None, stream: bool, coding: bytes, kind: str, target: Deployment) -> None:
    """An answer may come compressed only if the caller can read gzip, and no event has to be looked for in it."""
    headers = ((b"accept-encoding", accepted),) if accepted is not None else ()
    request = sent(structs.replace(relayed(ROWS[0], b"{}", headers=headers), stream=stream), target)
    assert [value for name, value in request.headers if name == b"accept-encoding"] == [coding]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(replace(OPENAI, base_url="https://h/api/v3", api_version=""), "https://h/api/v3/files", id="v3"),
        pytest.param(replace(OPENAI, base_url="https://h/openai"), "https://h/openai/v1/files", id="prefix"),
    ],
)
def test_openai_url(target: Deployment, expected: str) -> None:
    """A server whose root URL names a version gets no second one."""
    assert url(Call("files", None, b"", False, method="GET"), target) == expected


def test_path_outside_of_v1() -> None:
    """What lies outside of an OpenAI-compatible server's v1 keeps its path, query and quoting."""
    outside = Call("/health/a%20b", None, b"", False, method="GET", query="x=1")
    assert url(outside, OPENAI) == "http://localhost:8000/health/a%20b?x=1"


@pytest.mark.parametrize(
    ("name", "in_body", "target", "expected"),
    [
        pytest.param("d", "asked", V1, "d", id="another"),
        pytest.param("d", "d", V1, None, id="the-same"),
        pytest.param("d", None, V1, "d", id="none"),
        pytest.param("d", "asked", CLASSIC, None, id="in-the-path"),
        pytest.param("d", "asked", OPENAI, "d", id="openai"),
        pytest.param("", "asked", OPENAI, None, id="openai-without-a-default"),
        pytest.param("", None, OPENAI, None, id="openai-without-a-default-nor-a-model"),
    ],
)
def test_model_for_body(name: str, in_body: str | None, target: Deployment, expected: str | None) -> None:
    """The body's model becomes the deployment's name where the body is what names it, and it differs."""
    asked = Call("chat/completions", None, b"{}", False, model_in_body=in_body)
    assert model_for_body(asked, replace(target, name=name)) == expected


FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nasked\r\n--b--\r\n'
FORM_HEADERS: Headers = ((b"content-type", b"multipart/form-data; boundary=b"),)


async def form_sent(operation: str, target: Deployment) -> tuple[UpstreamRequest, bytes]:
    """The request for a form, and the body that it would send."""
    form = Form(FieldFinder(b"b", b"model"))
    await form.write(FORM)
    asked = Call(operation, "asked", form, False, headers=FORM_HEADERS, verbatim=True, model_in_body="asked")
    request = sent(asked, target)
    assert not isinstance(request.body, bytes)
    return request, b"".join([piece async for piece in request.body])


@pytest.mark.parametrize(
    ("operation", "target", "body"),
    [
        pytest.param("audio/transcriptions", CLASSIC, FORM, id="classic"),
        pytest.param("audio/transcriptions", V1, FORM, id="classic-as-v1-has-no-audio"),
        pytest.param("images/edits", V1, FORM.replace(b"asked", b"d"), id="v1"),
        pytest.param("audio/transcriptions", OPENAI, FORM.replace(b"asked", b"d"), id="openai"),
    ],
)
def test_form(operation: str, target: Deployment, body: bytes) -> None:
    """A form goes on with its own type and length; at most the value of its field `model` is another."""
    request, sent_body = asyncio.run(form_sent(operation, target))
    assert sent_body == body
    assert request.headers == (
        *FORM_HEADERS,
        (b"accept-encoding", b"identity"),
        KEY,
    )


def test_upload() -> None:
    """An upload is the request's own body; the transport tells its length."""

    async def receive() -> dict[str, object]:
        raise AssertionError("it was read")

    upload = Upload(receive, 7, 100)
    request = sent(Call("files", None, upload, False, verbatim=True), V1)
    assert request.body is upload
    assert request.headers == ((b"accept-encoding", b"identity"), KEY)


def test_nothing_is_adapted_in_what_is_relayed() -> None:
    """What a deployment taught changes no relayed body: that is the caller's own."""
    body = b'{"max_tokens":5,"model":"d"}'
    asked = structs.replace(call(body), verbatim=True, model_in_body="d")
    request, applied = upstream_request(asked, deployment(), KEY, (RENAMED,))
    assert request.body is body
    assert applied == ()


@pytest.mark.parametrize("target", [CLASSIC, V1, OPENAI], ids=["classic", "v1", "openai"])
def test_no_other_value_is_decoded(target: Deployment) -> None:
    """What stands beside `model` is never made into a number or a text and back: each value's bytes are its own."""
    values = [b"1e400", b"-0", b"1E+2", b"0.10", b'"\\u0000"', b'"\\/"', b"[ ]", b'{"a":1,"a":2}', b"9" * 400]
    body = b'{"model":"asked",' + b",".join(b'"k%d":%s' % pair for pair in enumerate(values)) + b"}"
    sent_body = sent(relayed(ROWS[0], body), target).body
    assert isinstance(sent_body, bytes)
    members = msgspec.json.decode(sent_body, type=dict[str, msgspec.Raw])
    assert [bytes(members[f"k{index}"]) for index in range(len(values))] == values


@pytest.mark.parametrize(
    ("method", "operation"),
    [
        pytest.param("GET", "assistants", id="list-of-assistants"),
        pytest.param("GET", "chat/completions", id="list-of-stored-completions"),
    ],
)
def test_no_model_in_no_body(method: str, operation: str) -> None:
    """A call without a body goes on without one, though the operation takes a model with another method."""
    asked = Call(operation, None, b"", False, method=method, verbatim=True)
    assert sent(asked, V1).body == b""


@pytest.mark.parametrize("body", [b"", b" "], ids=["empty", "blank"])
def test_empty_body_is_no_fault_of_ours(body: bytes) -> None:
    """An empty body goes on, or is the caller's error."""
    with suppress(RequestError):
        sent(Call("responses", None, body, False, verbatim=True), V1)


@pytest.mark.parametrize(
    ("operation", "target", "expected"),
    [
        pytest.param("chat/completions", deployment(api_version="2024-10-21"), True, id="ga"),
        pytest.param("chat/completions", deployment(api_version="2024-09-01-preview"), True, id="the-first"),
        pytest.param("chat/completions", deployment(api_version="2024-08-01-preview"), False, id="the-last-without"),
        pytest.param("chat/completions", deployment(api_version="2024-06-01"), False, id="older-ga"),
        pytest.param("chat/completions", deployment(api_version="2023-05-15"), False, id="oldest"),
        pytest.param("chat/completions", deployment(api_version="2025-04-01-preview"), True, id="newer"),
        pytest.param("chat/completions", V1, True, id="v1"),
        pytest.param("chat/completions", deployment(api_version="preview"), True, id="v1-preview"),
        pytest.param("chat/completions", OPENAI, True, id="openai"),
        pytest.param("chat/completions", replace(OPENAI, api_version=""), True, id="openai-without-a-version"),
        pytest.param("completions", CLASSIC, True, id="legacy"),
        pytest.param("completions", V1, True, id="legacy-of-v1-which-is-classic"),
        pytest.param("completions", deployment(api_version="2024-02-01"), False, id="legacy-and-old"),
        pytest.param("extensions/chat/completions", V1, False, id="extensions-are-old"),
        pytest.param("responses", V1, False, id="responses-tell-without"),
        pytest.param("images/generations", V1, False, id="no-chat"),
        pytest.param("embeddings", OPENAI, False, id="no-stream-at-all"),
    ],
)
def test_tells_usage(operation: str, target: Deployment, expected: bool) -> None:
    """Chats are asked for usage where the API version knows that; a server that refused it is not asked again."""
    asked = structs.replace(call(stream=True), operation=operation)
    assert tells_usage(asked, target) is expected
    assert tells_usage(asked, target, (RENAMED, NO_TOP_P)) is expected
    assert not tells_usage(asked, target, (RENAMED, WITHOUT_USAGE))


ASKS = b'{"stream_options":{"include_usage":true},"stream":true}'


@pytest.mark.parametrize("verbatim", [False, True], ids=["simple", "relayed"])
@pytest.mark.parametrize(
    ("metered", "stream", "asks", "adaptations", "body"),
    [
        pytest.param(True, True, False, (), ASKS, id="metered"),
        pytest.param(False, True, False, (), b'{"stream":true}', id="not-metered"),
        pytest.param(True, False, False, (), b'{"stream":true}', id="no-stream"),
        pytest.param(True, True, True, (), b'{"stream":true}', id="asks-itself"),
        pytest.param(True, True, False, (WITHOUT_USAGE,), b'{"stream":true}', id="refused-before"),
    ],
)
def test_usage_is_asked_for(
    verbatim: bool, metered: bool, stream: bool, asks: bool, adaptations: tuple[Adaptation, ...], body: bytes
) -> None:
    """Only a stream that is counted, and whose caller does not ask himself, is asked to tell what it took."""
    asked = structs.replace(
        call(b'{"stream":true}', stream=stream), is_read=metered, asks_usage=asks, verbatim=verbatim
    )
    assert asked.hides_usage is (metered and stream and not asks)
    request, applied = upstream_request(asked, deployment(), KEY, adaptations)
    assert (request.body, applied) == (body, ())


def test_usage_and_model() -> None:
    """A body may get another model's name and be asked for usage, both at once."""
    asked = structs.replace(
        call(b'{"stream":true,"model":"m"}', stream=True),
        verbatim=True,
        is_read=True,
        model_in_body="m",
    )
    request, _ = upstream_request(asked, V1, KEY)
    assert msgspec.json.decode(bytes(request.body)) == {  # type: ignore[arg-type]
        "stream": True,
        "model": "d",
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(("metered", "coding"), [(True, b"identity"), (False, b"gzip")])
def test_what_is_counted_is_not_compressed(metered: bool, coding: bytes) -> None:
    """An answer whose usage is read here comes as it is, whatever its caller could read."""
    asked = structs.replace(relayed(ROWS[0], b"{}", headers=((b"accept-encoding", b"gzip"),)), is_read=metered)
    assert [value for name, value in sent(asked, CLASSIC).headers if name == b"accept-encoding"] == [coding]
