import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from chat_api.errors import UpstreamError, UpstreamRefusal
from chat_api.refusals import adaptation_for, explained, read_refusal, read_refusal_in_200, relayable, truly
from chat_api.types import Adaptation, Call, Deployment, Headers, Reply, Secret

ERRORS = Path(__file__).parents[2] / "shared" / "azure" / "wire" / "azure-errors.json"
needs_errors = pytest.mark.skipif(not ERRORS.exists(), reason="the shared wire captures are not here")
RENAMED = Adaptation("max_tokens", "max_completion_tokens")


def observed(kind: str) -> list[Any]:
    """The captured errors, or streams that begin with one, as parameters."""
    if not ERRORS.exists():
        return []
    return [pytest.param(entry, id=entry["name"]) for entry in json.loads(ERRORS.read_text())[kind]]


def call(*, model: str | None = None, defaulted: tuple[str, ...] = ()) -> Call:
    """A call whose body is beside the point."""
    return Call("chat/completions", model, b"{}", False, defaulted=frozenset(defaulted))


def deployment(key: str | None = None) -> Deployment:
    """A deployment, with a key of the server's own or without."""
    return Deployment("d", "https://r.openai.azure.com/p", "2024-10-21", Secret(key) if key else None)


def refusal(
    message: str, *, status: int = 400, code: str | None = None, param: str | None = None, kind: str | None = None
) -> UpstreamRefusal:
    """A refusal as `read_refusal` makes one."""
    return UpstreamRefusal(message, status=status, type=kind, code=code, param=param)


@needs_errors
def test_captures_are_read() -> None:
    """There are captured errors to read, in each family."""
    bodies = [param.values[0]["body"] for param in observed("errors")]
    assert len(bodies) >= 20
    assert any("statusCode" in body for body in bodies)
    assert any(isinstance(body, str) for body in bodies)


@needs_errors
@pytest.mark.parametrize("entry", observed("errors"))
def test_observed_error(entry: dict[str, Any]) -> None:
    """Every error that Azure was seen to send keeps its status, its message, its code and its retry headers."""
    body, original = entry["body"], None
    if isinstance(body, dict):
        original = (body.get("error") or body)["message"]
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = tuple((name.encode(), value.encode()) for name, value in entry["headers"].items())

    read = read_refusal(entry["status"], headers, raw)

    assert read.status == entry["status"]
    assert read.message == original or (original is None and read.message)
    assert isinstance(read.type, str)
    if isinstance(body, dict):
        code = body["error"]["code"] if "error" in body else str(body["statusCode"])
        assert read.code == code
        assert read.inner == body.get("error", {}).get("innererror")
    if "retry-after" in entry["headers"]:
        assert (b"retry-after", entry["headers"]["retry-after"].encode()) in read.headers
    assert explained(read, deployment(), call()).message.startswith(original or "")


@pytest.mark.parametrize(
    ("body", "message", "kind", "code", "param"),
    [
        pytest.param(
            {"error": {"message": "m", "type": "invalid_request_error", "param": "n", "code": "c"}},
            *("m", "invalid_request_error", "c", "n"),
            id="model",
        ),
        pytest.param(
            {"error": {"code": "Timeout", "message": "m"}},
            "m",
            "invalid_request_error",
            "Timeout",
            None,
            id="front-end",
        ),
        pytest.param({"error": {"code": 429, "message": "m"}}, "m", "invalid_request_error", "429", None, id="number"),
        pytest.param(
            {"statusCode": 401, "message": "m", "activityId": "a"},
            *("m", "invalid_request_error", "401", None),
            id="api-management",
        ),
        pytest.param({"message": "m", "code": "c"}, "m", "invalid_request_error", "c", None, id="flat"),
        pytest.param({"error": "m"}, "m", "invalid_request_error", None, None, id="text"),
        pytest.param(
            {"error": {"message": "m", "type": None, "param": None, "code": None}},
            *("m", "invalid_request_error", None, None),
            id="nulls",
        ),
        pytest.param(
            {"error": {"message": "m", "type": ["x"], "param": {"y": 1}, "code": ""}},
            *("m", "invalid_request_error", None, None),
            id="wrong-types",
        ),
    ],
)
def test_families(body: Any, message: str, kind: str, code: str | None, param: str | None) -> None:
    """An error is read from each family of bodies, however much of it is there."""
    read = read_refusal(400, (), json.dumps(body).encode())
    assert (read.message, read.type, read.code, read.param) == (message, kind, code, param)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(400, "invalid_request_error", id="400"),
        pytest.param(401, "authentication_error", id="401"),
        pytest.param(403, "permission_error", id="403"),
        pytest.param(404, "not_found_error", id="404"),
        pytest.param(408, "timeout_error", id="408"),
        pytest.param(413, "invalid_request_error", id="413"),
        pytest.param(429, "rate_limit_error", id="429"),
        pytest.param(500, "server_error", id="500"),
        pytest.param(503, "server_error", id="503"),
    ],
)
def test_type_of_its_own(status: int, kind: str) -> None:
    """An error without a type gets the one that its status stands for; one that has it keeps it."""
    assert read_refusal(status, (), b'{"error":{"message":"m"}}').type == kind
    assert read_refusal(status, (), b'{"error":{"message":"m","type":"own"}}').type == "own"


@pytest.mark.parametrize(
    ("body", "inner"),
    [
        pytest.param(b'{"error":{"message":"m","innererror":{"code":"c"}}}', {"code": "c"}, id="wire"),
        pytest.param(b'{"error":{"message":"m","inner_error":{"code":"c"}}}', {"code": "c"}, id="specification"),
        pytest.param(b'{"error":{"message":"m","innererror":null}}', None, id="null"),
        pytest.param(b'{"error":{"message":"m"}}', None, id="none"),
    ],
)
def test_inner_error(body: bytes, inner: Any) -> None:
    """The content filter's results are kept, under either of their names."""
    assert read_refusal(400, (), body).inner == inner


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "The upstream answered 502 without saying why.", id="empty"),
        pytest.param(b" \r\n", "The upstream answered 502 without saying why.", id="blank"),
        pytest.param(b"no healthy upstream", "The upstream answered 502: no healthy upstream", id="plain-text"),
        pytest.param(b"a\n\n  b\t c", "The upstream answered 502: a b c", id="lines"),
        pytest.param(
            b"<html><head><title>502 Bad Gateway</title><style>p{color:red}</style><script>x<y</script></head>"
            b"<body><p>R&amp;D &lt;here&gt;</p></body></html>",
            "The upstream answered 502: 502 Bad Gateway R&D <here>",
            id="html",
        ),
        pytest.param(b"<html><body></body></html>", "The upstream answered 502 without saying why.", id="html-no-text"),
        pytest.param(b"[]", "The upstream answered 502: []", id="array"),
        pytest.param(b'[{"message":"m"}]', 'The upstream answered 502: [{"message":"m"}]', id="array-of-errors"),
        pytest.param(b"null", "The upstream answered 502: null", id="null"),
        pytest.param(b'"m"', 'The upstream answered 502: "m"', id="string"),
        pytest.param(b"{}", "The upstream answered 502: {}", id="object"),
        pytest.param(b'{"error":null}', 'The upstream answered 502: {"error":null}', id="null-error"),
        pytest.param(b'{"error":[1]}', 'The upstream answered 502: {"error":[1]}', id="error-array"),
        pytest.param(b'{"detail":"Not Found"}', 'The upstream answered 502: {"detail":"Not Found"}', id="other-json"),
        pytest.param(
            b'{"error":{"message":{"a":["b"]}}}',
            'The upstream answered 502: {"error":{"message":{"a":["b"]}}}',
            id="nested",
        ),
        pytest.param(b'{"error":{"message"', 'The upstream answered 502: {"error":{"message"', id="cut-short"),
        pytest.param(b"caf\xe9", "The upstream answered 502: caf\ufffd", id="invalid-utf-8"),
        pytest.param(
            b'{"error":{"message":"\xff"}}',
            'The upstream answered 502: {"error":{"message":"\ufffd"}}',
            id="json-with-invalid-utf-8",
        ),
        pytest.param(b"x" * 500, "The upstream answered 502: " + "x" * 500, id="500-characters"),
        pytest.param(b"x" * 501, "The upstream answered 502: " + "x" * 500 + "…", id="501-characters"),
        pytest.param(b"y" * 5_000_000, "The upstream answered 502: " + "y" * 500 + "…", id="huge"),
        pytest.param(b"[" * 200_000, "The upstream answered 502: " + "[" * 500 + "…", id="deep"),
        pytest.param(
            b'{"error":' * 50_000, "The upstream answered 502: " + ('{"error":' * 56)[:500] + "…", id="deep-error"
        ),
    ],
)
def test_message_of_its_own(body: bytes, message: str) -> None:
    """A body that holds no message is quoted as text, cut short; nothing makes reading it fail."""
    read = read_refusal(502, (), body)
    assert (read.status, read.message, read.type, read.code) == (502, message, "server_error", None)


def test_relayed_headers() -> None:
    """Retry headers, quotas and ids of a refusal are kept; the connection's own headers are not."""
    kept: Headers = (
        (b"retry-after", b"7"),
        (b"retry-after-ms", b"6500"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"apim-request-id", b"a"),
        (b"x-ms-region", b"East US 2"),
    )
    dropped: Headers = ((b"content-length", b"2"), (b"set-cookie", b"c"), (b"connection", b"close"))
    assert read_refusal(429, (*dropped, *kept), b"{}").headers == kept


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param({"code": "rate_limit_exceeded"}, 429, id="rate-limit"),
        pytest.param({"code": "rate_limit_exceeded", "type": "server_error"}, 429, id="code-before-type"),
        pytest.param({"type": "too_many_requests"}, 429, id="type"),
        pytest.param({"code": "insufficient_quota"}, 429, id="quota"),
        pytest.param({"code": "content_filter"}, 400, id="content-filter"),
        pytest.param({"code": "context_length_exceeded"}, 400, id="context-length"),
        pytest.param({"code": "unheard_of", "type": "invalid_request_error"}, 400, id="invalid-request"),
        pytest.param({"code": "timeout"}, 408, id="timeout"),
        pytest.param({"type": "server_error"}, 500, id="server-error"),
        pytest.param({"code": "429"}, 429, id="number-as-text"),
        pytest.param({"code": 503}, 503, id="number"),
        pytest.param({"status": 400, "code": "rate_limit_exceeded"}, 400, id="status-first"),
        pytest.param({"status": 200, "code": "429"}, 429, id="status-of-no-error"),
        pytest.param({"status": "failed", "type": "server_error"}, 500, id="status-word"),
        pytest.param({"code": "4290"}, 502, id="no-status"),
        pytest.param({"code": "unheard_of"}, 502, id="unknown-code"),
        pytest.param({"code": ["429"]}, 502, id="wrong-type"),
        pytest.param({}, 502, id="message-only"),
    ],
)
def test_status_of_an_error_in_200(error: dict[str, Any], status: int) -> None:
    """An error inside a 200 gets the status that its status, code or type stands for, else 502."""
    read = read_refusal_in_200((), json.dumps({"error": {"message": "m", **error}}).encode())
    assert read is not None
    assert (read.status, read.message) == (status, "m")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(b'{"error":"m"}', 502, "m", id="text"),
        pytest.param(b'{"statusCode":500,"message":"m"}', 500, "m", id="api-management"),
        pytest.param(b'{"type":"error","error":{"message":"m","code":"429"}}', 429, "m", id="event"),
        pytest.param(
            b'{"error":{"code":"429"}}',
            429,
            'The upstream answered 429: {"error":{"code":"429"}}',
            id="code-without-message",
        ),
    ],
)
def test_error_in_200(body: bytes, status: int, message: str) -> None:
    """An error in a 200 is found in each shape of it."""
    read = read_refusal_in_200(((b"x-request-id", b"i"),), body)
    assert read is not None
    assert (read.status, read.message, read.headers) == (status, message, ((b"x-request-id", b"i"),))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[DONE]", id="done"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'{"choices":[{"message":{"content":"error"}}]}', id="completion"),
        pytest.param(b'{"choices":[],"error":null}', id="null-error"),
        pytest.param(b'{"error":{}}', id="empty-error"),
    ],
)
def test_no_error_in_200(body: bytes) -> None:
    """A 200 without an error object has no error in it."""
    assert read_refusal_in_200((), body) is None


@needs_errors
def test_observed_error_event() -> None:
    """The capacity error that Azure was seen to send as a stream's first event is a 429."""
    stream = next(param.values[0] for param in observed("streams") if "first_event" in param.values[0]["name"])
    read = read_refusal_in_200((), stream["body"].encode().removeprefix(b"data: ").strip())
    assert read is not None
    assert (read.status, read.code) == (429, "rate_limit_exceeded")
    assert "no_kv_space" in read.message


HINTS = [
    pytest.param(
        refusal("Unrecognized request argument supplied: x"),
        'API_VERSION is "2024-10-21"; a newer one may know the argument',
        id="unknown-argument",
    ),
    pytest.param(
        refusal("Model {modelName} is enabled only for api versions 2024-12-01-preview and later", code="BadRequest"),
        'API_VERSION is "2024-10-21"; set the one it names',
        id="newer-version",
    ),
    pytest.param(
        refusal("api-version query parameter is not allowed when using /v1 path", code="BadRequest"),
        "set API_VERSION=v1",
        id="version-on-v1",
    ),
    pytest.param(
        refusal("m", status=404, code="DeploymentNotFound"),
        'deployment "d" not found at host r.openai.azure.com; check DEPLOYMENT_NAME',
        id="deployment",
    ),
    pytest.param(
        refusal("m", code="OperationNotSupported"),
        'the model behind deployment "d" cannot do that; check DEPLOYMENT_NAME',
        id="operation",
    ),
    pytest.param(
        refusal("m", status=403, code="AuthenticationTypeDisabled"),
        "r.openai.azure.com accepts no keys; allow key access on the resource",
        id="keys-disabled",
    ),
    pytest.param(
        refusal("m", status=401, code="PermissionDenied"),
        "the identity lacks the role Cognitive Services OpenAI User on the resource",
        id="role",
    ),
    pytest.param(
        refusal("m", status=401, code="401"),
        "r.openai.azure.com does not accept KEY; check that it belongs to this resource",
        id="key",
    ),
    pytest.param(
        refusal("m", status=403, code="403"),
        "r.openai.azure.com does not admit this machine; check the resource's networking rules",
        id="network",
    ),
    pytest.param(
        refusal("m", status=404, code="404"),
        "r.openai.azure.com knows no such path or version; "
        'check the path, ENDPOINT and API_VERSION, which is "2024-10-21"',
        id="path",
    ),
]


@pytest.mark.parametrize(("refused", "hint"), HINTS)
def test_hint(refused: UpstreamRefusal, hint: str) -> None:
    """A hint follows Azure's message where the gateway knows what to change."""
    message = refused.message
    again = refusal(message, status=refused.status, code=refused.code)
    assert explained(again, deployment("k"), call()).message == f"{message}. Hint: {hint}."


@pytest.mark.parametrize(
    ("refused", "key", "model", "words"),
    [
        pytest.param(("DeploymentNotFound", 404), "k", "d", "; check model.", id="deployment-of-the-request"),
        pytest.param(("DeploymentNotFound", 404), "k", None, "; check DEPLOYMENT_NAME.", id="deployment-of-the-server"),
        pytest.param(("OperationNotSupported", 400), "k", "d", "; check model.", id="operation-of-the-request"),
        pytest.param(("401", 401), None, "d", "does not accept the key you presented;", id="key-of-the-caller"),
        pytest.param(("401", 401), "SECRET", "d", "does not accept KEY;", id="key-of-the-server"),
    ],
)
def test_hint_names_the_source(refused: tuple[str, int], key: str | None, model: str | None, words: str) -> None:
    """A hint names the setting or the request's own field, whichever was used, and never a key."""
    code, status = refused
    message = explained(refusal("m", status=status, code=code), deployment(key), call(model=model)).message
    assert words in message
    assert "SECRET" not in message


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(refusal("m "), id="400"),
        pytest.param(refusal("m ", code="content_filter"), id="content-filter"),
        pytest.param(refusal("m ", status=429, code="429"), id="429"),
        pytest.param(refusal("m ", status=500), id="500"),
        pytest.param(refusal("m ", status=408, code="Timeout"), id="408"),
    ],
)
def test_no_hint(refused: UpstreamRefusal) -> None:
    """Where there is nothing to change Azure's message stands alone."""
    assert explained(refused, deployment("k"), call()).message == "m "


@pytest.mark.parametrize(
    ("refused", "defaulted", "adaptation"),
    [
        pytest.param(refusal("m", code="unsupported_parameter", param="max_tokens"), (), RENAMED, id="rename"),
        pytest.param(
            refusal("m", code="unsupported_parameter", param="max_tokens"),
            ("max_tokens",),
            RENAMED,
            id="rename-default",
        ),
        pytest.param(
            refusal("Unsupported parameter: 'max_tokens' is not supported", code="unsupported_parameter"),
            (),
            RENAMED,
            id="rename-named-in-message",
        ),
        pytest.param(
            refusal("m", code="unsupported_value", param="temperature"),
            ("temperature",),
            Adaptation("temperature", None),
            id="drop-default-value",
        ),
        pytest.param(
            refusal("m", code="unsupported_parameter", param="top_p"),
            ("top_p", "temperature"),
            Adaptation("top_p", None),
            id="drop-default-parameter",
        ),
        pytest.param(
            refusal("Unsupported value: 'temperature' does not support 0.5", code="unsupported_value"),
            ("temperature",),
            Adaptation("temperature", None),
            id="drop-named-in-message",
        ),
        pytest.param(
            refusal("m", code="unsupported_value", param="max_tokens"),
            ("max_tokens",),
            Adaptation("max_tokens", None),
            id="drop-default-max-tokens",
        ),
        pytest.param(refusal("m", code="unsupported_value", param="max_tokens"), (), None, id="callers-max-tokens"),
        pytest.param(refusal("m", code="unsupported_value", param="temperature"), (), None, id="callers-temperature"),
        pytest.param(refusal("m", code="unsupported_value", param="temperature"), ("top_p",), None, id="other-default"),
        pytest.param(refusal("m", code="unsupported_parameter"), ("temperature",), None, id="no-name"),
        pytest.param(refusal("m", code=None, param="max_tokens"), ("max_tokens",), None, id="no-code"),
        pytest.param(refusal("m", code="invalid_value", param="temperature"), ("temperature",), None, id="other-code"),
        pytest.param(
            refusal("m", status=422, code="unsupported_parameter", param="max_tokens"), (), None, id="other-status"
        ),
        pytest.param(
            refusal("Unrecognized request argument supplied: max_tokens"), ("max_tokens",), None, id="unknown-argument"
        ),
    ],
)
def test_adaptation(refused: UpstreamRefusal, defaulted: tuple[str, ...], adaptation: Adaptation | None) -> None:
    """`max_tokens` is renamed, any other refused parameter left out if it is a default; the caller's never is."""
    assert adaptation_for(refused, call(defaulted=defaulted)) == adaptation


def test_adaptation_in_words() -> None:
    """An adaptation says what it does."""
    assert str(RENAMED) == "max_tokens sent as max_completion_tokens"
    assert str(Adaptation("temperature", None)) == "default temperature left out"


NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
JSON: Headers = ((b"content-type", b"application/json"), (b"x-request-id", b"i"))
IN_SHAPE = b' {"error": {"message":"m",  "type":null, "param":null,"code":"c", "innererror":{"a":1.0}}} '


def reply(status: int, body: bytes, headers: Headers = JSON) -> Reply:
    """A reply of that status."""
    return Reply(status, headers, body, deployment("k"))


def relayed_call(operation: str = "chat/completions", *, stream: bool = False, method: str = "POST") -> Call:
    """A call that is relayed."""
    return Call(operation, "d", b"{}", stream, method=method, verbatim=True)


def raised(got: Reply, asked: Call) -> UpstreamError:
    """The error that a reply is."""
    with pytest.raises(UpstreamError) as caught:
        relayable(truly(got, asked), asked, NOW)
    return caught.value


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 429, 500, 503])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(IN_SHAPE, id="with-inner-error"),
        pytest.param(b'{"error":{"message":"m","type":"t","param":"p","code":null},"x":1}', id="with-more"),
    ],
)
def test_error_in_shape(status: int, body: bytes) -> None:
    """An error that has OpenAI's shape goes on with every byte and header it has."""
    got = reply(status, body, (*JSON, (b"retry-after", b"7")))
    assert relayable(got, relayed_call(), NOW) == got


@pytest.mark.parametrize(
    ("status", "body", "message", "code"),
    [
        pytest.param(429, b'{"error":{"code":"429","message":"m"}}', "m", "429", id="family-2"),
        pytest.param(400, b'{"error":{"code":"Timeout","message":"m","type":null}}', "m", "Timeout", id="part-of-it"),
        pytest.param(401, b'{"statusCode":401,"message":"m"}', "m. Hint: r.openai.azure.com", "401", id="family-3"),
        pytest.param(500, b'{"statusCode":500,"message":"m","activityId":"a"}', "m", "500", id="family-3-server"),
        pytest.param(500, b"<html><body>Oops</body></html>", "The upstream answered 500: Oops", None, id="html"),
        pytest.param(503, b"no healthy upstream", "The upstream answered 503: no healthy upstream", None, id="text"),
        pytest.param(502, b"", "The upstream answered 502 without saying why.", None, id="empty"),
        pytest.param(400, b'{"error":"m"}', "m", None, id="text-error"),
        pytest.param(400, b'[{"error":{}}]', 'The upstream answered 400: [{"error":{}}]', None, id="array"),
        pytest.param(
            400,
            b'{"error":{"message":"","type":null,"param":null,"code":null}}',
            'The upstream answered 400: {"error":{"message":"","type":null,"param":null,"code":null}}',
            None,
            id="in-shape-without-message",
        ),
    ],
)
def test_error_out_of_shape(status: int, body: bytes, message: str, code: str | None) -> None:
    """An error of any other shape is raised, to be given OpenAI's, under its status and with its headers."""
    error = raised(reply(status, body), relayed_call())
    assert isinstance(error, UpstreamRefusal)
    assert (error.status, error.code) == (status, code)
    assert error.message.startswith(message)
    assert error.headers == ((b"x-request-id", b"i"),)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"error":{"code":"429","message":"m."}}', id="family-2"),
        pytest.param(b'{"error":{"message":"m.","type":"t","param":null,"code":"429"}}', id="in-shape"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(((b"retry-after", b"86400"),), id="seconds"),
        pytest.param(((b"retry-after", b"86400"), (b"retry-after-ms", b"86400000")), id="both"),
        pytest.param(((b"retry-after", b"Mon, 07 Nov 1994 08:49:37 GMT"),), id="date"),
    ],
)
def test_long_wait(headers: Headers, body: bytes) -> None:
    """A wait of a day becomes a minute and the word not to try again; the message has the truth."""
    error = raised(reply(429, body, (*JSON, *headers)), relayed_call())
    assert error.status == 429
    assert error.message == "m. It asks to wait 86400 seconds."
    assert dict(error.headers) == {b"x-request-id": b"i", b"retry-after": b"60", b"x-should-retry": b"false"}


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        pytest.param("chat/completions", b'{"choices":[{"message":{"content":"x"}}]}', id="chat"),
        pytest.param("chat/completions", b'{"choices":[],"error":{"message":"m"}}', id="choices-beside-an-error"),
        pytest.param("embeddings", b'{"data":[],"error":{"message":"m"}}', id="data-beside-an-error"),
        pytest.param("responses", b'{"id":"resp_1","object":"response","error":null}', id="response"),
        pytest.param("responses", b'{"id":"resp_1","status":"failed","error":{"message":"m"}}', id="failed-response"),
        pytest.param("threads/t/runs/r", b'{"id":"run_1","last_error":{"code":"x"}}', id="failed-run"),
        pytest.param("batches/b", b'{"object":"batch","error":{"message":"m"}}', id="object"),
        pytest.param("x", b'{"error":null}', id="null-error"),
        pytest.param("x", b"[]", id="array"),
        pytest.param("x", b"not JSON at all", id="no-json"),
    ],
)
def test_answer(operation: str, body: bytes) -> None:
    """An answer goes on as it is, though it has a member `error`: something else in it says that it is one."""
    got = reply(200, body)
    assert relayable(got, relayed_call(operation), NOW) is got


@pytest.mark.parametrize(
    ("status", "headers", "body", "method"),
    [
        pytest.param(204, (), b"", "DELETE", id="no-content"),
        pytest.param(200, JSON, b"", "HEAD", id="head"),
        pytest.param(200, ((b"content-type", b"text/plain"),), b"", "POST", id="empty-text"),
        pytest.param(200, (*JSON, (b"content-encoding", b"gzip")), b"\x1f\x8b", "POST", id="compressed"),
        pytest.param(200, ((b"content-type", b"audio/mpeg"),), b'{"error":{"message":"m"}}', "POST", id="binary"),
        pytest.param(201, JSON, b'{"id":"x"}', "POST", id="created"),
    ],
)
def test_answer_that_is_not_read(status: int, headers: Headers, body: bytes, method: str) -> None:
    """What is no JSON, or has nothing in it by right, goes on unread."""
    got = reply(status, body, headers)
    assert relayable(got, relayed_call("x", method=method), NOW) is got


@pytest.mark.parametrize("body", [b"", b" \r\n"], ids=["empty", "blank"])
def test_empty_answer(body: bytes) -> None:
    """JSON with nothing in it is no answer."""
    error = raised(reply(200, body), relayed_call())
    assert (error.status, error.code, error.message) == (
        502,
        "not_an_answer",
        "r.openai.azure.com answered 200 with nothing in it",
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(b'{"error":{"code":"429","message":"m"}}', 429, "m", id="family-2"),
        pytest.param(b'{"error":{"code":"rate_limit_exceeded","message":"m"}}', 429, "m", id="code-word"),
        pytest.param(b'{"created":1,"error":{"code":"contentFilter","message":"m"}}', 502, "m", id="image"),
        pytest.param(b'{"error":"m"}', 502, "m", id="text"),
    ],
)
def test_hidden_error(body: bytes, status: int, message: str) -> None:
    """An error that came as a 200 gets the status it stands for."""
    error = raised(reply(200, body), relayed_call("images/generations"))
    assert (error.status, error.message) == (status, message)


def test_hidden_error_in_shape() -> None:
    """An error of OpenAI's shape that came as a 200 goes on with its own bytes, under the status it stands for."""
    body = b'{"error":{"message":"m","type":"server_error","param":null,"code":"rate_limit_exceeded"}}'
    got = reply(200, body)
    assert relayable(truly(got, relayed_call()), relayed_call(), NOW) == structs.replace(got, status=429)


def test_hidden_error_with_a_long_wait() -> None:
    """The wait that a hidden error asks for is capped like any other's."""
    body = b'{"error":{"message":"m.","type":"server_error","param":null,"code":"rate_limit_exceeded"}}'
    error = raised(reply(200, body, (*JSON, (b"retry-after", b"3600"))), relayed_call())
    assert (error.status, error.message) == (429, "m. It asks to wait 3600 seconds.")


@pytest.mark.parametrize("operation", ["chat/completions", "completions"])
def test_stream_that_is_none(operation: str) -> None:
    """A whole answer to a streamed chat is none: its client would wait for events; an error in it is told."""
    answer = reply(200, b'{"choices":[]}')
    assert "not with events" in raised(answer, relayed_call(operation, stream=True)).message
    hidden = reply(200, b'{"error":{"code":"429","message":"m"}}')
    assert raised(hidden, relayed_call(operation, stream=True)).status == 429


def test_stream_of_another_kind() -> None:
    """What else may be asked for as a stream may come whole."""
    got = reply(200, b'{"text":"x"}')
    assert truly(got, relayed_call("audio/transcriptions", stream=True)) is got
