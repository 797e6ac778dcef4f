"""Identical calls in flight, over real sockets: one upstream call, and every caller has the whole answer."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.callers import MODEL, Called
from chat_api import keeping
from chat_api.assembly import assembled
from chat_api.emulator.answers import Answer
from tests.keepers import PATIENCE_SECONDS, SHARED, SIMPLE_CHAT, Chat, Front, asks, front
from tests.servers import eventually

pytestmark = pytest.mark.alone  # a thousand sockets

MANY = 1000
LEAVING = 300
WORDS = " ".join(f"word{number}" for number in range(30))


@pytest.fixture
def server() -> Iterator[Front]:
    """A gateway where calls share, and nothing is kept: what is asked anew is answered anew."""
    with front(**SHARED, MAX_ATTEMPTS="1") as running:
        yield running


def halves(count: int, *, streams_first: bool = False) -> list[Chat]:
    """So many who ask the same, every other one for a stream."""
    return [asks(WORDS, stream=bool(number % 2) is not streams_first) for number in range(count)]


def alone(server: Front, kind: Chat) -> bytes:
    """What somebody is answered who shares with nobody."""
    (called,) = server.begin(kind).got()
    assert called.is_good
    assert called.headers["x-chat-api-cache"] == "bypass"
    return called.body


def without(answer: bytes, member: str = "usage") -> dict[str, object]:
    """An answer but for one member."""
    members: dict[str, object] = json.loads(answer)
    del members[member]
    return members


def told(called: Called) -> str:
    """Where the answer is from."""
    return called.headers["x-chat-api-cache"]


def assert_idle(server: Front) -> None:
    """Nobody waits for anything, here or there."""
    assert eventually(lambda: server.kept()["sharing"]["flights"] == 0, PATIENCE_SECONDS)
    assert eventually(lambda: server.upstream.open_calls == 0, PATIENCE_SECONDS)


def test_a_thousand_callers_of_one_answer(server: Front) -> None:
    """Of a thousand callers, half of them streamed, one is answered by the upstream, and all have that very answer."""
    server.hold()
    crowd = server.begin(*halves(MANY))
    server.wait_for(joined=MANY - 1)
    server.open()
    calls = crowd.got()

    assert server.asked == 1
    assert [called.is_good for called in calls] == [True] * MANY
    whole = Answer(json.loads(halves(1)[0].body), MODEL).whole()
    plain = {called.body for called in calls if not called.kind.stream}
    streamed = {called.body for called in calls if called.kind.stream}
    assert [json.loads(body) for body in plain] == [whole]
    assert len(streamed) == 1
    assert without(json.dumps(whole).encode()) == json.loads(assembled(streamed.pop()) or b"{}")
    assert sorted(map(told, calls)) == ["bypass"] + ["shared"] * (MANY - 1)
    assert_idle(server)


def test_the_others_have_all_of_it_when_some_leave(server: Front) -> None:
    """Of a thousand callers of one stream 300 leave in the middle, the first of them among those; 700 have it whole."""
    server.hold(after=10)
    crowd = server.begin(asks(WORDS, stream=True))
    assert eventually(lambda: server.upstream.waiting == 1, PATIENCE_SECONDS)
    others = server.begin(*halves(MANY - 1))
    server.wait_for(joined=MANY - 1)
    crowd.leave(0)
    others.leave(*range(LEAVING - 1))
    server.open()
    calls = others.got()

    assert server.asked == 1
    assert server.upstream.left == 0
    assert [called.is_good for called in calls] == [True] * (MANY - LEAVING)
    stream = alone(server, asks(WORDS, stream=True))
    whole = alone(server, asks(WORDS, stream=True, stream_options={"include_usage": True}))
    assert {called.body for called in calls if called.kind.stream} == {stream}
    assert {called.body for called in calls if not called.kind.stream} == {assembled(whole)}
    assert without(assembled(whole) or b"{}") == json.loads(assembled(stream) or b"{}")
    assert_idle(server)


@pytest.mark.parametrize(
    ("after", "streams_first"),
    [(0, False), (0, True), (10, True)],
    ids=["plain", "a-stream", "in-the-middle-of-a-stream"],
)
def test_the_upstream_is_cancelled_when_all_leave(server: Front, after: int, streams_first: bool) -> None:
    """As long as one caller is there the upstream's call goes on; when he leaves as well its connection is closed."""
    server.hold(after=after)
    count = 60
    crowd = server.begin(*halves(1, streams_first=streams_first))
    assert eventually(lambda: server.upstream.waiting == 1, PATIENCE_SECONDS)
    others = server.begin(*halves(count, streams_first=streams_first))
    server.wait_for(joined=count)
    others.leave(*range(count))
    assert (server.upstream.left, server.upstream.open_calls) == (0, 1)
    assert server.kept()["sharing"]["flights"] == 1
    crowd.leave(0)

    assert eventually(lambda: server.upstream.left == 1, PATIENCE_SECONDS)
    assert server.asked == 1
    assert_idle(server)
    server.open()
    assert alone(server, asks(WORDS))
    assert server.asked == 2


def test_the_simple_endpoint_shares_its_own(server: Front) -> None:
    """JSON, events and text of `/v1/gpt/chat` are one upstream call, and calls of OpenAI's API another one."""
    own = [asks(WORDS, path=SIMPLE_CHAT, stream=stream) for stream in (False, True)]
    texts = [Chat(SIMPLE_CHAT, one.stream, one.fields, "text/plain") for one in own]
    kinds = [*own, *texts, *halves(2)] * 10
    server.hold()
    crowd = server.begin(*kinds)
    assert eventually(lambda: server.upstream.waiting == 2, PATIENCE_SECONDS)
    server.wait_for(joined=len(kinds) - 2)
    server.open()
    calls = crowd.got()

    assert server.asked == 2
    assert [called.has_ended for called in calls] == [True] * len(kinds)
    by_kind = {kind: {called.body for called in calls if called.kind == kind} for kind in kinds}
    assert all(len(bodies) == 1 for bodies in by_kind.values())
    whole, events, *said = (by_kind[kind].pop() for kind in (*own, *texts))
    answer = json.loads(whole)
    assert answer["text"] == f'You said: "{WORDS}".'
    assert said == [answer["text"].encode()] * 2
    streamed = json.loads(assembled(events) or b"{}")
    assert streamed["choices"] == answer["choices"]
    assert_idle(server)


@pytest.mark.parametrize("stream", [True, False], ids=["a-stream", "plain"])
def test_a_failure_reaches_all_and_is_forgotten(server: Front, stream: bool) -> None:
    """A 503 is told to each caller, as his own; the next one is asked for anew."""
    kinds = [asks(WORDS, stream=bool(number % 2) is stream, model="fault-503") for number in range(50)]
    server.hold()
    crowd = server.begin(*kinds)
    server.wait_for(joined=len(kinds) - 1)
    server.open()
    calls = crowd.got()

    assert server.asked == 1
    assert {called.status for called in calls} == {503}
    assert all("no healthy upstream" in called.body.decode() for called in calls)
    assert len({called.headers["x-chat-api-request-id"] for called in calls}) == len(kinds)
    assert server.begin(kinds[0]).got()[0].status == 503
    assert server.asked == 2
    assert_idle(server)


def test_a_stream_that_breaks_breaks_for_all(server: Front) -> None:
    """Who has part of a stream is told that it broke, who wants it whole gets an error; the next one is asked anew."""
    kind = asks(WORDS, stream=True, model="fault-cut")
    server.hold(after=10)
    first = server.begin(kind)
    assert eventually(lambda: server.upstream.waiting == 1, PATIENCE_SECONDS)
    others = server.begin(*[kind, asks(WORDS, model="fault-cut")] * 10)
    server.wait_for(joined=20)
    server.open()
    calls = [*first.got(), *others.got()]

    assert server.asked == 1
    assert not any(called.is_good for called in calls)
    streamed = {called.body for called in calls if called.kind.stream}
    assert len(streamed) == 1
    (told_of,) = streamed
    assert b'"error"' in told_of.splitlines()[-2]
    plain = [called for called in calls if not called.kind.stream]
    assert {called.status for called in plain} == {502}
    assert server.begin(kind).got()[0].body == told_of
    assert server.asked == 2
    assert_idle(server)


def test_a_slow_reader_holds_nobody_back(server: Front) -> None:
    """While one caller reads nothing of a long stream the others have all of it; then he has all of it as well."""
    kind = asks(" ".join(["long"] * 5000), stream=True)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(PATIENCE_SECONDS)
        slow.connect(("127.0.0.1", server.port))
        server.hold(after=5)
        slow.sendall(kind.request)
        assert eventually(lambda: server.upstream.waiting == 1, PATIENCE_SECONDS)
        crowd = server.begin(*[kind] * 3)
        server.wait_for(joined=3)
        server.open()
        fast = crowd.got()
        read = b""
        while part := slow.recv(1 << 20):
            read += part

    assert server.asked == 1
    assert [called.is_good for called in fast] == [True] * 3
    (body,) = {called.body for called in fast}
    assert body.count(b"data: ") > 5000
    sizes = read.partition(b"\r\n\r\n")[2]
    assert sizes.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert sizes.count(b"data: ") == body.count(b"data: ")
    assert_idle(server)


@pytest.mark.parametrize("streams_first", [True, False], ids=["a-stream", "plain"])
def test_the_other_form_is_made_once(server: Front, streams_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many want the other form of an answer, which may be long, it is made for all of them together."""
    made: list[str] = []

    def counted(name: str) -> None:
        make = getattr(keeping, name)

        def making(*args: Any, **options: Any) -> Any:
            made.append(name)
            return make(*args, **options)

        monkeypatch.setattr(keeping, name, making)

    counted("assembled")
    counted("as_events")
    server.hold()
    first = server.begin(*halves(1, streams_first=streams_first))
    assert eventually(lambda: server.upstream.waiting == 1, PATIENCE_SECONDS)
    others = server.begin(*halves(40, streams_first=streams_first))
    server.wait_for(joined=40)
    server.open()
    assert all(called.is_good for called in [*first.got(), *others.got()])
    assert made == ["assembled" if streams_first else "as_events"]


def test_long_json_is_shared_in_both_forms(server: Front) -> None:
    """JSON that is so long that it goes on as it comes is no stream: who wants one gets events, others get JSON."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "long " * 400_000}}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    server.upstream.says = answer
    server.hold()
    first = server.begin(asks("Hello"))
    assert eventually(lambda: server.upstream.waiting == 1, PATIENCE_SECONDS)
    others = server.begin(*(asks("Hello", stream=bool(number % 2)) for number in range(4)))
    server.wait_for(joined=4)
    server.open()
    calls = [*first.got(), *others.got()]

    assert server.asked == 1
    assert [called.is_good for called in calls] == [True] * 5
    assert [called.headers["content-type"].partition(";")[0] for called in calls[1:3]] == [
        "application/json",
        "text/event-stream",
    ]
    found = [json.loads((assembled(called.body) if called.kind.stream else called.body) or b"{}") for called in calls]
    assert found == [answer] * 5
    assert_idle(server)
