"""The phases of an exchange: who may use our keys, whose credential goes upstream, and which key's turn it is."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network

import pytest
from msgspec import structs

from chat_api.callers import ClientKey, by_address, digest_of
from chat_api.errors import AuthError, Forbidden, RequestError
from chat_api.metering import Meter
from chat_api.models import Models
from chat_api.plans import Limits, Planner
from chat_api.stores.memory import MemoryStore
from chat_api.types import Call, Deployment, Headers, Secret, UpstreamRequest
from tests.relays import gateway_of, known

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
            await gateway.handle(known(gateway, each))

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
        asyncio.run(gateway.handle(known(gateway, call(presented))))
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


NOW = 1_800_000_000.0
ALICE = ClientKey("alice", digest_of("key-of-alice"))
OLD = ClientKey("old", digest_of("old-key"), expires=NOW)
HOME = ClientKey("home", digest_of("home-key"), networks=(ip_network("10.0.0.0/8"),))
KEYS = [ALICE, OLD, HOME]
MIXED = [OURS, THEIRS]


@pytest.mark.parametrize(
    ("presented", "address", "deployments", "name"),
    [
        pytest.param("key-of-alice", "1.2.3.4", [OURS], "alice", id="key"),
        pytest.param("home-key", "10.1.1.1", [OURS], "home", id="key-from-home"),
        pytest.param("key-of-alice", "1.2.3.4", MIXED, "alice", id="key-where-some-are-ours"),
        pytest.param("own", "1.2.3.4", MIXED, None, id="own-where-some-are-theirs"),
        pytest.param("own", "1.2.3.4", [THEIRS], None, id="own-where-all-are-theirs"),
    ],
)
@pytest.mark.parametrize("counts", [False, True], ids=["nobody-counts", "counted"])
def test_admitted(presented: str, address: str, deployments: list[Deployment], name: str | None, counts: bool) -> None:
    """Who may be answered by some deployment is admitted before his body is read: as his key, or as his address."""
    meter = Meter(Planner(Limits()), MemoryStore()) if counts else None
    gateway = gateway_of({"": Models({}, deployments)}, Recorder(), KEYS, meter=meter, wall=lambda: NOW)
    caller = gateway.admit(Secret(presented), address)
    if name is None:
        assert caller == (by_address(address) if counts else None)
    else:
        assert caller is not None
        assert (caller.name, caller.subject) == (name, f"key {name}")


@pytest.mark.parametrize(
    ("presented", "deployments", "status", "code", "words"),
    [
        pytest.param(None, [OURS], 401, "missing_credential", "no key; send one", id="none"),
        pytest.param("wrong", [OURS], 401, "invalid_credential", "not one of this server", id="wrong"),
        pytest.param("old-key", [OURS], 401, "expired_credential", "the client key old expired", id="expired"),
        pytest.param("old-key", [THEIRS], 401, "expired_credential", "the client key old expired", id="expired-theirs"),
        pytest.param("home-key", [OURS], 403, "ip_not_allowed", "not accepted from 1.2.3.4", id="elsewhere"),
        pytest.param("key-of-alice", [THEIRS], 401, "invalid_credential", "a key of your own", id="all-are-theirs"),
        pytest.param(None, [THEIRS], 401, "missing_credential", "send yours", id="none-for-theirs"),
        pytest.param(None, MIXED, 401, "missing_credential", "send yours", id="none-for-either"),
    ],
)
def test_not_admitted(presented: str | None, deployments: list[Deployment], status: int, code: str, words: str) -> None:
    """Whom no deployment could answer is refused before his body is read, and no message holds a key."""
    gateway = gateway_of({"": Models({}, deployments)}, Recorder(), KEYS, wall=lambda: NOW)
    with pytest.raises((AuthError, Forbidden)) as caught:
        gateway.admit(Secret(presented) if presented else None, "1.2.3.4")
    assert (caught.value.status, caught.value.code) == (status, code)
    assert words in caught.value.message
    assert presented is None or presented not in caught.value.message


def test_admitted_where_keys_are_lent() -> None:
    """Without client keys all are admitted where ours are lent: as nobody, or as an address if calls are counted."""
    gateway = gateway_of({"": Models({}, [OURS])}, Recorder())
    assert gateway.admit(None, "1.2.3.4") is None
    assert gateway.admit(Secret("key-of-alice"), "1.2.3.4") is None
    meter = Meter(Planner(Limits()), MemoryStore())
    gateway = gateway_of({"": Models({}, [OURS])}, Recorder(), meter=meter)
    assert gateway.admit(Secret("key-of-alice"), "1.2.3.4") == by_address("1.2.3.4")
    assert gateway.admit(None) == by_address("")
    gateway = gateway_of({"": Models({}, [THEIRS])}, Recorder(), meter=meter)
    with pytest.raises(AuthError):
        gateway.admit(None, "1.2.3.4")


def test_each_upstream_admits_its_own() -> None:
    """A client key opens the upstreams that have a key of ours, and none of the others."""
    tables = {"": Models({}, [OURS]), "/theirs": Models({}, [replace(SERVER, name="m")])}
    gateway = gateway_of(tables, Recorder(), KEYS, wall=lambda: NOW)
    assert gateway.admit(Secret("key-of-alice"), "", "") is not None
    with pytest.raises(AuthError, match="a key of your own"):
        gateway.admit(Secret("key-of-alice"), "", "/theirs")
    with pytest.raises(AuthError, match="no key; send one"):
        gateway.admit(None, "", "")
    assert gateway.admit(Secret("own"), "", "/theirs") is None


def test_key_expires_while_the_server_runs() -> None:
    """Whether a key has expired is looked at for each request."""
    clock = [NOW - 1]
    gateway = gateway_of({"": Models({}, [OURS])}, Recorder(), KEYS, wall=lambda: clock[0])
    assert gateway.admit(Secret("old-key")) is not None
    clock[0] += 1
    with pytest.raises(AuthError, match="expired"):
        gateway.admit(Secret("old-key"))


FEW = ClientKey("few", digest_of("few-key"), models=frozenset({"gpt", "d-two"}))
TABLE = Models(
    {"gpt": [replace(OURS, name="d-gpt")], "two": [replace(OURS, name="d-two")], "three": [replace(OURS, name="d-3")]},
    [replace(OURS, name="d-3")],
)


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        pytest.param("gpt", True, id="model"),
        pytest.param("d-gpt", True, id="its-deployment"),
        pytest.param("D-GPT", True, id="its-deployment-in-other-letters"),
        pytest.param("d-two", True, id="deployment-that-is-listed"),
        pytest.param("two", False, id="model-of-a-deployment-that-is-listed"),
        pytest.param("three", False, id="another-model"),
        pytest.param("d-3", False, id="another-deployment"),
        pytest.param("unknown", False, id="unknown"),
        pytest.param(None, False, id="the-default"),
        pytest.param("", False, id="empty"),
    ],
)
@pytest.mark.parametrize("operation", ["chat/completions", "responses"])
def test_models_of_a_key(operation: str, model: str | None, allowed: bool) -> None:
    """A key that is for some models opens them under whatever name, and no other; nobody is asked for those."""
    recorder = Recorder()
    gateway = gateway_of({"": TABLE}, recorder, [FEW])
    asked = known(gateway, call("few-key", operation=operation, model=model, verbatim=True))
    if allowed:
        asyncio.run(gateway.handle(asked))
        assert len(recorder.requests) == 1
        return
    with pytest.raises(Forbidden) as caught:
        asyncio.run(gateway.handle(asked))
    assert (caught.value.code, recorder.requests) == ("model_not_allowed", [])


@pytest.mark.parametrize(
    ("operation", "method", "allowed"),
    [
        pytest.param("files", "POST", False, id="upload"),
        pytest.param("files/f", "GET", False, id="file"),
        pytest.param("batches", "POST", False, id="batch"),
        pytest.param("threads", "POST", False, id="thread"),
        pytest.param("threads/t/runs", "POST", False, id="run-of-an-assistant"),
        pytest.param("fine_tuning/jobs", "POST", False, id="fine-tuning"),
        pytest.param("evals", "POST", False, id="evaluation"),
        pytest.param("/api/chat", "POST", False, id="outside-of-v1"),
        pytest.param("chat/completions", "GET", False, id="stored-chats"),
        pytest.param("chat/completions", "HEAD", False, id="head"),
        pytest.param("responses", "GET", False, id="list-of-responses"),
        pytest.param("responses/r", "GET", True, id="response"),
        pytest.param("responses/r", "DELETE", True, id="response-deleted"),
        pytest.param("responses/r/cancel", "POST", True, id="response-cancelled"),
        pytest.param("models", "GET", True, id="list-of-models"),
    ],
)
def test_key_for_models_and_what_names_none(operation: str, method: str, allowed: bool) -> None:
    """What names no model could reach any of them: a key that is for some is not for that, but for what it made."""
    recorder = Recorder()
    models = Models({"gpt": [OURS]}, [replace(OURS, name="")])
    gateway = gateway_of({"": models}, recorder, [FEW])
    asked = known(gateway, call("few-key", operation=operation, method=method, verbatim=True))
    if allowed:
        asyncio.run(gateway.handle(asked))
        assert len(recorder.requests) == 1
        return
    with pytest.raises(Forbidden, match="says no model"):
        asyncio.run(gateway.handle(asked))
    assert recorder.requests == []


def test_key_for_all_models_may_do_anything() -> None:
    """A key without a list of models opens what names none as well."""
    (request,) = sent(
        {"": Models({}, [OURS])}, call("client-1", operation="files", verbatim=True), client_keys=CLIENT_KEYS
    )
    assert request.url.endswith("/openai/files?api-version=2024-10-21")


def test_call_that_is_not_begun_leaves_nothing_behind() -> None:
    """A counted call whose client left before it began is no coroutine that nobody awaits."""
    gateway = gateway_of({"": Models({}, [OURS])}, Recorder(), meter=Meter(Planner(Limits()), MemoryStore()))

    async def leave() -> None:
        task = asyncio.ensure_future(gateway.handle(known(gateway, call())))
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(leave())
