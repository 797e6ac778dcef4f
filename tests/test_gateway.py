"""The phases of an exchange: who may use our keys, whose credential goes upstream, and which key's turn it is."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from msgspec import structs

from chat_api.errors import AuthError, RequestError
from chat_api.models import Models
from chat_api.types import Call, Deployment, Headers, Secret, UpstreamRequest
from tests.relays import gateway_of

OURS = Deployment("d", "https://r.openai.azure.com", "2024-10-21", Secret("upstream-key"))
THEIRS = replace(OURS, key=None)
SERVER = Deployment("", "http://localhost:8000", "v1", None, "openai")
CLIENT_KEYS = [Secret("client-1"), Secret("client-2")]


class Answer:
    """An ordinary answer."""

    status = 200
    headers: Headers = ((b"content-type", b"application/json"),)
    queue_seconds = connect_seconds = 0.0

    def arrived(self) -> bytes | None:
        """It is read as it comes."""
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its body."""
        yield b'{"choices":[]}'

    async def aclose(self) -> None:
        """There is nothing to close."""


class Recorder:
    """A transport that answers everything, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[UpstreamRequest] = []

    async def send(self, request: UpstreamRequest) -> Answer:
        """Keep the request."""
        self.requests.append(request)
        return Answer()

    async def aclose(self) -> None:
        """There is nothing to close."""


def call(credential: str | None = None, **fields: object) -> Call:
    """A chat call of who presents that credential."""
    plain = Call("chat/completions", None, b"{}", False, Secret(credential) if credential is not None else None)
    return structs.replace(plain, **fields)


def sent(models: dict[str, Models], *calls: Call, client_keys: list[Secret] | None = None) -> list[UpstreamRequest]:
    """The requests that a gateway sends for these calls."""
    recorder = Recorder()
    gateway = gateway_of(models, recorder, client_keys or [])

    async def handle() -> None:
        for each in calls:
            await gateway.handle(each)

    asyncio.run(handle())
    return recorder.requests


def credentials(request: UpstreamRequest) -> list[bytes]:
    """What a request presents upstream."""
    return [value for name, value in request.headers if name in (b"api-key", b"authorization")]


@pytest.mark.parametrize(
    ("deployment", "presented", "client_keys", "upstream"),
    [
        pytest.param(OURS, None, [], b"upstream-key", id="ours-is-lent-to-all"),
        pytest.param(OURS, "anything", [], b"upstream-key", id="ours-is-lent-whatever-is-presented"),
        pytest.param(OURS, "client-1", CLIENT_KEYS, b"upstream-key", id="the-first-client-key"),
        pytest.param(OURS, "client-2", CLIENT_KEYS, b"upstream-key", id="the-second-client-key"),
        pytest.param(THEIRS, "own", [], b"own", id="callers-own"),
        pytest.param(THEIRS, "own", CLIENT_KEYS, b"own", id="callers-own-beside-client-keys"),
    ],
)
def test_authenticated(
    deployment: Deployment, presented: str | None, client_keys: list[Secret], upstream: bytes
) -> None:
    """A client key opens our own key, which alone goes upstream; where we have none the caller's goes on."""
    (request,) = sent({"": Models({}, [deployment])}, call(presented), client_keys=client_keys)
    assert credentials(request) == [upstream]


@pytest.mark.parametrize(
    ("deployment", "presented", "client_keys", "code", "words"),
    [
        pytest.param(OURS, None, CLIENT_KEYS, "missing_credential", "no key;", id="missing"),
        pytest.param(OURS, "wrong", CLIENT_KEYS, "invalid_credential", "not one of this server's", id="wrong"),
        pytest.param(OURS, "client-", CLIENT_KEYS, "invalid_credential", "not one of", id="beginning-of-one"),
        pytest.param(OURS, "client-1 ", CLIENT_KEYS, "invalid_credential", "not one of", id="one-and-more"),
        pytest.param(OURS, "CLIENT-1", CLIENT_KEYS, "invalid_credential", "not one of", id="case"),
        pytest.param(OURS, "", CLIENT_KEYS, "invalid_credential", "not one of", id="empty"),
        pytest.param(OURS, "ü", CLIENT_KEYS, "invalid_credential", "", id="odd"),
        pytest.param(OURS, "upstream-key", CLIENT_KEYS, "invalid_credential", "not one of", id="upstreams-own"),
        pytest.param(THEIRS, "client-1", CLIENT_KEYS, "invalid_credential", "a key of your own", id="not-for-upstream"),
        pytest.param(THEIRS, None, CLIENT_KEYS, "missing_credential", "send yours", id="none-at-all"),
        pytest.param(THEIRS, None, [], "missing_credential", "send yours", id="none-at-all-without-client-keys"),
    ],
)
def test_refused(
    deployment: Deployment, presented: str | None, client_keys: list[Secret], code: str, words: str
) -> None:
    """Without a client key ours is not used, and a client key never goes upstream; no message holds a key."""
    recorder = Recorder()
    gateway = gateway_of({"": Models({}, [deployment])}, recorder, client_keys)
    with pytest.raises(AuthError) as caught:
        asyncio.run(gateway.handle(call(presented)))
    assert (caught.value.status, caught.value.code) == (401, code)
    assert words in caught.value.message
    assert not any(key in caught.value.message for key in ("client-1", "client-2", "upstream-key"))
    assert recorder.requests == []


@pytest.mark.parametrize(("presented", "upstream"), [("client-1", b"upstream-key"), ("own", b"own")])
def test_each_caller_gets_the_deployments_that_they_may_use(presented: str, upstream: bytes) -> None:
    """Where a group mixes deployments with our key and without, a client key opens ours and goes to none of theirs."""
    models = Models({"m": [OURS, THEIRS]}, [OURS])
    requests = sent({"": models}, *[call(presented, model="m")] * 3, client_keys=CLIENT_KEYS)
    assert [credentials(request) for request in requests] == [[upstream]] * 3


def test_keys_take_turns() -> None:
    """A server under several keys is asked under each of them in turn."""
    keyed = [replace(SERVER, key=Secret(key)) for key in ("k1", "k2", "k3")]
    requests = sent({"": Models({}, keyed)}, *[call(model="m")] * 7)
    assert [credentials(request) for request in requests] == [
        [b"Bearer " + key] for key in (b"k1", b"k2", b"k3", b"k1", b"k2", b"k3", b"k1")
    ]


def test_deployments_take_turns() -> None:
    """Deployments that answer for the same model do so in turn."""
    models = Models({"m": [OURS, replace(OURS, base_url="https://s.openai.azure.com")]}, [OURS])
    requests = sent({"": models}, *[call(model="m")] * 4)
    assert [request.url.split("/")[2] for request in requests] == ["r.openai.azure.com", "s.openai.azure.com"] * 2


@pytest.mark.parametrize(
    ("operation", "method", "model", "expected"),
    [
        pytest.param("files", "POST", None, "https://r.openai.azure.com/openai/files", id="files"),
        pytest.param("files/f", "GET", None, "https://r.openai.azure.com/openai/files/f", id="file"),
        pytest.param("threads", "POST", None, "https://r.openai.azure.com/openai/threads", id="thread"),
        pytest.param("threads", "POST", "m", "https://s.openai.azure.com/openai/threads", id="model-of-the-body"),
        pytest.param("responses", "POST", "m", "https://s.openai.azure.com/openai/responses", id="response"),
        pytest.param("responses/r", "GET", None, "https://r.openai.azure.com/openai/responses/r", id="stored"),
    ],
)
def test_resource(operation: str, method: str, model: str | None, expected: str) -> None:
    """A call that names a model goes to it; one that concerns none goes to the default resource, named or not."""
    other = replace(OURS, name="e", base_url="https://s.openai.azure.com")
    models = Models({"m": [other]}, [replace(OURS, name="")])
    (request,) = sent({"": models}, call(operation=operation, method=method, model=model, verbatim=True))
    assert request.url == f"{expected}?api-version=2024-10-21"


def test_model_is_needed() -> None:
    """An operation that runs a model needs one that is named, or a default one."""
    with pytest.raises(RequestError) as caught:
        sent({"": Models({}, [replace(OURS, name="")])}, call(operation="responses"))
    assert caught.value.code == "missing_model"


def test_routes() -> None:
    """A call goes to the upstream whose route it came by, and is told its models."""
    tables = {"": Models({}, [OURS]), "/local": Models({}, [replace(SERVER, key=Secret("l"))])}
    azure, local = sent(tables, call(), call(route="/local"))
    assert (azure.url.split("/")[2], local.url) == ("r.openai.azure.com", "http://localhost:8000/v1/chat/completions")
    gateway = gateway_of(tables, Recorder())
    assert gateway.models() is tables[""]
    assert gateway.models("/local") is tables["/local"]
