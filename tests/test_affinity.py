import asyncio
from collections.abc import AsyncIterator, Awaitable
from functools import partial

import pytest

from chat_api import affinity as module
from chat_api.affinity import MAX_NOTED, Affinity, NotedBody, concerns, is_about_one, named_in
from chat_api.types import Call, Resource, Secret, Sink

EAST: Resource = ("https://east.openai.azure.com", Secret("key-of-east"))
WEST: Resource = ("https://west.openai.azure.com", Secret("key-of-west"))


def call(operation: str, body: bytes = b"", method: str = "POST") -> Call:
    """A call of that kind."""
    return Call(operation, None, body, False, method=method)


def remembering(*answers: bytes) -> Affinity:
    """A memory after these answers of EAST."""
    affinity = Affinity()
    for answer in answers:
        affinity.note(answer, EAST)
    return affinity


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        pytest.param(b'{"id":"resp_0123456789","object":"response"}', b"resp_0123456789", id="response"),
        pytest.param(b'{"id": "file-abcdef", "object": "file"}', b"file-abcdef", id="file"),
        pytest.param(b'{\n  "id" : "thread_AbC-_9"\n}', b"thread_AbC-_9", id="spaces"),
        pytest.param(b'{"output_file_id":"file-abcdef"}', b"file-abcdef", id="another-id"),
        pytest.param(b'{"data":[{"id":"vs_111111"},{"id":"vs_222222"}]}', b"vs_222222", id="list"),
        pytest.param(b'event: x\ndata: {"item_id":"msg_0123456789"}\n\n', b"msg_0123456789", id="event"),
    ],
)
def test_noted(answer: bytes, named: bytes) -> None:
    """What an answer calls by an id is known to who gave it, in a path and in a body."""
    affinity = remembering(answer)
    assert affinity.resource_of(call(f"responses/{named.decode()}/input_items", method="GET")) == EAST
    assert affinity.resource_of(call("responses", b'{"model":"m","previous_response_id":"%s"}' % named)) == EAST


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b'{"name":"file-abcdef"}', id="not-an-id"),
        pytest.param(b'{"text":"{\\"id\\":\\"file-abcdef\\"}"}', id="within-a-text"),
        pytest.param(b'{"id":"file-ab"}', id="too-short"),
        pytest.param(b'{"id":"FILE-abcdef"}', id="no-prefix"),
        pytest.param(b'{"id":"file-%s"}' % (b"a" * 129), id="too-long"),
        pytest.param(b'{"id":7}', id="number"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_not_noted(answer: bytes) -> None:
    """What is no id of OpenAI's is not remembered."""
    affinity = remembering(answer, b'{"id":"other-0123456"}')
    assert affinity.resource_of(call("files/file-abcdef", method="GET")) is None
    assert affinity.resource_of(call("responses", b'{"a":"file-abcdef","b":"file-ab","c":"FILE-abcdef"}')) is None


@pytest.mark.parametrize(
    ("operation", "body", "known"),
    [
        pytest.param("files/file-abcdef/content", b"", True, id="path"),
        pytest.param("file-abcdef", b"", False, id="operation-itself"),
        pytest.param("responses", b'{"x":["resp_999999","file-abcdef"]}', True, id="second-in-a-list"),
        pytest.param("responses", b'{"file_id":"file-abcdefg"}', False, id="longer-one"),
        pytest.param("responses", b'{"text":"see file-abcdef there"}', False, id="within-words"),
        pytest.param("chat/completions", b'{"file_id":"file-abcdef"}', False, id="chat"),
        pytest.param("embeddings", b'{"file_id":"file-abcdef"}', False, id="embeddings"),
        pytest.param("/openai/files/file-abcdef", b"", True, id="outside-of-v1"),
        pytest.param("threads", b'{"messages":[{"attachments":[{"file_id":"file-abcdef"}]}]}', True, id="deep"),
    ],
)
def test_named(operation: str, body: bytes, known: bool) -> None:
    """A call names a thing by its id as a whole; what is scoped to a deployment names nothing."""
    affinity = remembering(b'{"id":"file-abcdef"}')
    assert affinity.resource_of(call(operation, body)) == (EAST if known else None)


def test_path_before_body() -> None:
    """What the path names counts before what the body does."""
    affinity = remembering(b'{"id":"thread_111111"}')
    affinity.note(b'{"id":"file-abcdef"}', WEST)
    assert affinity.resource_of(call("threads/thread_111111/messages", b'{"file_id":"file-abcdef"}')) == EAST


def test_newest_counts() -> None:
    """Where two resources have given the same id the last one counts."""
    affinity = remembering(b'{"id":"file-abcdef"}')
    affinity.note(b'{"id":"file-abcdef"}', WEST)
    assert affinity.resource_of(call("files/file-abcdef", method="GET")) == WEST


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest ids are forgotten first."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    affinity = remembering(*(b'{"id":"file-%06d"}' % number for number in range(5)))
    known = [affinity.resource_of(call(f"files/file-{number:06d}")) is not None for number in range(5)]
    assert known == [False, False, True, True, True]


def test_what_is_seen_again_is_remembered_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that comes again is the newest then: what is in use is not forgotten for what is not."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    affinity = remembering(*(b'{"id":"file-%06d"}' % number for number in (0, 1, 2, 0, 3)))
    known = [affinity.resource_of(call(f"files/file-{number:06d}")) is not None for number in range(4)]
    assert known == [True, False, True, True]


def test_one_answer_does_not_fill_the_memory() -> None:
    """Of one answer so many ids are noted and no more."""
    affinity = remembering(b",".join(b'"id":"file-%06d"' % number for number in range(MAX_NOTED + 1)))
    assert affinity.resource_of(call(f"files/file-{MAX_NOTED - 1:06d}")) == EAST
    assert affinity.resource_of(call(f"files/file-{MAX_NOTED:06d}")) is None


@pytest.mark.parametrize(
    ("operation", "concerned"),
    [
        ("responses", True),
        ("files/f", True),
        ("threads", True),
        ("containers/c/files/f", True),
        ("chat/completions", False),
        ("/anything", False),
        ("files/f/content", False),
        ("containers/c/files/f/content", False),
    ],
)
def test_concerns(operation: str, concerned: bool) -> None:
    """What runs a model of a deployment teaches nothing, nor what lies outside of /v1, nor the content of a file."""
    assert concerns(call(operation)) is concerned


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        pytest.param("responses/resp_0123456789", True, id="response"),
        pytest.param("files/file-abcdeF/content", True, id="content"),
        pytest.param("threads/thread_abcde1/runs/run_abcdef", True, id="two"),
        pytest.param("fine_tuning/jobs/ftjob-abcdef0123456789", True, id="job"),
        pytest.param("fine_tuning/jobs", False, id="jobs"),
        pytest.param("vector_stores", False, id="stores"),
        pytest.param("responses", False, id="responses"),
        pytest.param("files", False, id="files"),
        pytest.param("file-abcdef", False, id="operation-itself"),
        pytest.param("responses/resp_1", False, id="too-short"),
    ],
)
def test_about_one(operation: str, expected: bool) -> None:
    """A path that has an id is about one thing, which only one resource has."""
    assert is_about_one(operation) is expected


@pytest.mark.parametrize(
    "operation", ["realtime/client_secrets", "responses/input_tokens", "/openai/fine_tuning/jobs", "x/admin_api_keys"]
)
def test_words_of_the_path_are_no_ids(operation: str) -> None:
    """A path of OpenAI's own words is about nothing that one resource has and another has not."""
    assert not is_about_one(operation)


def test_named_in() -> None:
    """What a call names are the texts in its body that look like ids, under whatever name."""
    body = b'{"metadata":{"file_id":"file-abcdef"},"x":["resp_0123456","words_of ours"],"input":"see thread_abcdef"}'
    assert named_in(call("responses", body)) == {b"file-abcdef", b"resp_0123456"}
    assert named_in(call("files/file-abcdef", b"")) == frozenset()


def test_what_the_call_named_is_not_noted() -> None:
    """An id that an answer may only repeat, of the caller's metadata say, is not the resource's for that."""
    affinity = remembering(b'{"id":"file-abcdef"}')
    answer = b'{"id":"resp_0123456","metadata":{"file_id":"file-abcdef","thread_id":"thread_999999"}}'
    affinity.note(answer, WEST, frozenset({b"file-abcdef", b"thread_999999"}))
    assert affinity.resource_of(call("responses/resp_0123456")) == WEST
    assert affinity.resource_of(call("files/file-abcdef")) == EAST
    assert affinity.resource_of(call("threads/thread_999999")) is None


class Pieces:
    """A body in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.said: list[str] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.pieces:
            yield self.pieces.pop(0)

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Pass them on."""
        while self.pieces:
            if (waiting := sink(self.pieces.pop(0))) is not None:
                return waiting
        return None

    def expect_end(self) -> None:
        """Note it."""
        self.said.append("end")

    async def aclose(self) -> None:
        """Note it."""
        self.said.append("closed")


EVENTS = (b'data: {"id":"resp_111111"}\n\n', b'data: {"item_id":"msg_222222","file_id":"file-333333"}\n\n')


@pytest.mark.parametrize("way", ["iterated", "flowing"])
def test_noted_body(way: str) -> None:
    """A body goes on unchanged and its ids are known as they pass, either way that it is read; not what was named."""
    affinity = Affinity()
    pieces = Pieces(*EVENTS)
    body = NotedBody(pieces, partial(affinity.note, resource=WEST, named=frozenset({b"file-333333"})))

    async def read() -> list[bytes]:
        came: list[bytes] = []
        if way == "iterated":
            came += [piece async for piece in body]
        else:

            def sink(piece: bytes) -> Awaitable[object] | None:
                came.append(piece)
                return asyncio.sleep(0) if len(came) == 1 else None

            while (waiting := await body.flow(sink)) is not None:
                await waiting
        body.expect_end()
        await body.aclose()
        return came

    assert asyncio.run(read()) == list(EVENTS)
    assert pieces.said == ["end", "closed"]
    for named in ("resp_111111", "msg_222222"):
        assert affinity.resource_of(call(f"responses/{named}")) == WEST
    assert affinity.resource_of(call("files/file-333333")) is None
