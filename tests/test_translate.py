import pytest

from chat_api.errors import RequestError
from chat_api.translate import adapted_body, upstream_request, url
from chat_api.types import Adaptation, Call, Deployment

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
    assert url("chat/completions", target) == expected


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
        pytest.param("../d", "..%2Fd", id="dots-and-slash"),
        pytest.param("...", "...", id="three-dots"),
        pytest.param("a;b&c=d@e:f+g", "a%3Bb%26c%3Dd%40e%3Af%2Bg", id="delimiters"),
    ],
)
def test_deployment_is_quoted(name: str, quoted: str) -> None:
    """A deployment's name is one path segment, whatever it holds."""
    assert url("chat/completions", deployment(name)) == (
        f"https://r.openai.azure.com/openai/deployments/{quoted}/chat/completions?api-version=2024-10-21"
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(".", id="dot"),
        pytest.param("..", id="dots"),
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
        url("chat/completions", deployment(name))
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
        pytest.param(b'{"messages": []}', b'{"messages":[],"model":"my \\"d\\""}', id="no-model"),
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
    body, applied = adapted_body(call(b'{"max_tokens":' + value + b',"seed":1.0}'), None, (RENAMED,))
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
    assert adapted_body(original, None, adaptations) == (expected, applied)


def test_both_names() -> None:
    """A parameter is not renamed over one that the caller sent under the new name."""
    body = b'{"max_tokens":5,"max_completion_tokens":7}'
    assert adapted_body(call(body), None, (RENAMED,)) == (body, ())


def test_model_and_adaptation() -> None:
    """On v1 the model is set beside what was adapted."""
    body, applied = adapted_body(call(b'{"model":"x","max_tokens":5}'), "d", (RENAMED,))
    assert body == b'{"model":"d","max_completion_tokens":5}'
    assert applied == (RENAMED,)


def test_nothing_to_adapt() -> None:
    """Without adaptations the body goes on as the very bytes that came, spaces, doubles and all."""
    body = b' { "max_tokens" : 5, "a":1, "a":2 } '
    sent, applied = adapted_body(call(body), None, ())
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
    sent, applied = adapted_body(call(body), None, (adaptation,))
    assert sent is body
    assert applied == ()
