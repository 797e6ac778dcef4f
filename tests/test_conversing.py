"""How exchanges end for the conversation log, told of each once, whatever the upstream says and the caller does."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from chat_api import settings
from chat_api.app import App, create_app
from chat_api.conversation import line_of
from chat_api.conversing import MAX_LOGGED_BYTES, Conversations, Ended, HeardBody
from chat_api.errors import CutShort, GatewayError
from chat_api.exchanges import Exchange
from tests.scripted import Regions, Said, settled

CHAT, SIMPLE = "/v1/chat/completions", "/v1/gpt/chat"
OURS, THEIRS = "canary-key-of-ours", "canary-key-of-theirs"
EVENTS = [b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % number for number in range(5)]
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
TOOK = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":5,"total_tokens":6}}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"code":"429","message":"key %s is over"}}\n\n'


class World:
    """A gateway whose upstream says what a test has it say, and the exchanges that its log was told of."""

    def __init__(self, app: App, state: Any, regions: Regions) -> None:
        self._app = app
        self._state = state
        self.regions = regions
        self.told: list[Exchange] = []
        self.sent = b""

    def note(self, exchange: Exchange) -> None:
        """As the log does."""
        self.told.append(exchange)

    async def ask(
        self, path: str = CHAT, *, stream: bool = True, key: str = "", after: bytes | None = None, **more: Any
    ) -> None:
        """Ask, and read the answer to its end; or leave when so much of it has come."""
        words = {"prompt": "hi"} if path == SIMPLE else {"messages": [{"role": "user", "content": "hi"}]}
        body = json.dumps({**words, "stream": stream, **more}).encode()
        messages = [{"type": "http.request", "body": body}]
        gone = asyncio.Event()
        come = b""

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal come
            come += message.get("body", b"")
            if after is not None and come.find(after) >= 0:
                gone.set()
                await asyncio.sleep(0.01)

        if after == b"":
            asyncio.get_running_loop().call_later(0.01, gone.set)
        headers = [(b"content-type", b"application/json"), *([(b"api-key", key.encode())] if key else [])]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), *headers],
            "client": ("127.0.0.1", 1),
            "scheme": "http",
            "state": self._state,
        }
        await self._app(scope, receive, send)
        self.sent = come


def run(
    folder: Path, script: Callable[[World], Awaitable[None]], *said: Said | tuple[float, Said], **environ: str
) -> list[Exchange]:
    """What the log was told of a script, over a gateway with these settings, whose upstream says that."""
    regions = Regions({"a": list(said)})
    values = {"ENDPOINT": "https://a.test", "DEPLOYMENT_NAME": "m", "KEY": OURS, "LOG_CHAT": "true", **environ}
    values["LOG_DIR"] = str(folder / "log")
    app = create_app(settings.load(values, folder / ".env"), transport=regions)

    async def main() -> list[Exchange]:
        async with app.router.lifespan_context(app) as state:
            assert state is not None
            made = World(app, state, regions)
            conversations: Conversations = state["gateway"].conversations
            conversations.log = made  # type: ignore[assignment]
            await script(made)
            await settled()
            assert all(one.closed for one in regions.said if not one.is_whole)
            return made.told

    return asyncio.run(main())


def once(**options: Any) -> Callable[[World], Coroutine[Any, Any, None]]:
    """A script that asks once."""

    async def script(made: World) -> None:
        await made.ask(**options)

    return script


def text_of(told: Exchange) -> str:
    """The text that was answered, as the log has it."""
    text: str = json.loads(line_of(told))["answer"]["choices"][0]["message"]["content"]
    return text


TEXT = EVENTS[0].replace(b'"0"', b'"\\"error\\""')


def streams() -> dict[str, tuple[list[bytes | Exception], str, str]]:
    """What an upstream may stream, how it ends, and with which code; made anew, for an exception keeps its trace."""
    return {
        "whole": ([*EVENTS, LAST, DONE], "complete", ""),
        "whole, at once": ([*EVENTS, LAST + DONE], "complete", ""),
        "whole, in one chunk": ([b"".join(EVENTS) + LAST + DONE], "complete", ""),
        "whole, with a text that looks like an error": ([*EVENTS, TEXT, LAST, DONE], "complete", ""),
        "whole, without its mark": ([*EVENTS, LAST], "complete", ""),
        "whole, and broke": ([*EVENTS, LAST, DONE, CutShort("broke")], "complete", ""),
        "ended early": ([*EVENTS], "broken", "answer_cut_short"),
        "broke": ([*EVENTS, CutShort("broke")], "broken", "answer_cut_short"),
        "an error": ([*EVENTS, ERROR % b"x"], "broken", "429"),
        "an error, and the mark": ([*EVENTS, ERROR % b"x" + DONE], "broken", "429"),
        "an error in two chunks": ([*EVENTS, ERROR[:12], (ERROR % b"x")[12:]], "broken", "429"),
    }


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize("name", streams())
def test_stream_ends_as_its_events_say(tmp_path: Path, path: str, name: str) -> None:
    """Complete is what was an answer, however its body ended; broken what was none, with the error that callers get."""
    events, ended, code = streams()[name]
    (told,) = run(tmp_path, once(path=path), Said(events=events))

    assert (told.ended, told.status, told.is_stream, told.attempts) == (ended, 200, True, 1)
    assert (told.error_code, bool(told.error)) == (code, ended == "broken")
    assert text_of(told).startswith("01234")


def test_stream_is_complete_if_its_caller_takes_it_so(tmp_path: Path) -> None:
    """What is no chunk is relayed, but breaks a simple chat; without its mark a simple chat is whole."""
    odd: list[bytes | Exception] = [*EVENTS, b"data: {oops\n\n", LAST, DONE]
    cut: list[bytes | Exception] = [*EVENTS, LAST, CutShort("broke")]
    told = [run(tmp_path, once(path=path), Said(events=one))[0] for one in (odd, cut) for path in (CHAT, SIMPLE)]

    assert [one.ended for one in told] == ["complete", "broken", "broken", "complete"]
    assert [bool(one.error) for one in told] == [False, True, True, False]


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize(("after", "text"), [(b"", None), (b'"1"', "01")])
def test_caller_leaves(tmp_path: Path, path: str, after: bytes, text: str | None) -> None:
    """Before the answer, or within it: what had come of it is there."""
    said = Said(events=[*EVENTS[:2], *[b": still here\n\n"] * 2000, LAST, DONE])
    (told,) = run(tmp_path, once(path=path, after=after), (0.0 if after else 30.0, said))

    assert (told.ended, told.error_code, told.status) == ("client left", "", 200 if after else 0)
    if text:
        assert text_of(told) == text


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize(("ours", "theirs"), [(OURS, ""), ("", THEIRS)], ids=["ours", "theirs"])
def test_key_that_an_upstream_repeats_is_not_told(tmp_path: Path, path: str, ours: str, theirs: str) -> None:
    """Neither ours nor a caller's own, in the refusal or in an error within a stream."""
    key = (ours or theirs).encode()
    error = ERROR.removeprefix(b"data: ").strip() % key
    script = (Said(events=[*EVENTS, ERROR % key]), Said(401, body=error))

    async def ask(made: World) -> None:
        await made.ask(path, key=theirs)
        await made.ask(path, key=theirs)

    broken, refused = run(tmp_path, ask, *script, KEY=ours)

    assert (broken.ended, refused.ended, refused.status) == ("broken", "refused", 401)
    for told in (broken, refused):
        assert "is over" in line_of(told).decode()
        assert "canary" not in repr(told)


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
def test_fault_of_ours_is_no_client_who_left(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What should not happen is refused with 500; its words are for the server's log."""

    async def ask(made: World) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("canary")

        monkeypatch.setattr(made.regions, "send", fail)
        await made.ask(path, stream=False)

    (told,) = run(tmp_path, ask, Said())

    assert (told.ended, told.status, told.error_code) == ("refused", 500, GatewayError.code)
    assert "canary" not in repr(told)


def test_refusal_that_is_still_arriving_is_one(tmp_path: Path) -> None:
    """What is refused at length is refused."""
    said = Said(413, body=b"<html>too large</html>", kind=b"text/html")
    (told,) = run(tmp_path, once(stream=False), said)

    assert (told.ended, told.status) == ("refused", 413)


@pytest.mark.parametrize("breaks", [False, True])
def test_large_json_as_it_comes(tmp_path: Path, breaks: bool) -> None:
    """An answer that is not held here is complete when all of it has come, and broken if it has not."""
    text = b'{"choices":[{"index":0,"message":{"content":"' + b"x" * 1_200_000
    end: bytes | Exception = CutShort("broke") if breaks else b'"}}]}'
    said = Said(events=[text, end])
    said.headers = ((b"content-type", b"application/json"),)
    (told,) = run(tmp_path, once(stream=False), said)

    assert (told.ended, told.is_stream) == ("broken" if breaks else "complete", False)
    assert sum(map(len, told.answer)) == len(text) + (0 if breaks else 5)


def test_no_more_of_an_answer_is_held_than_fits(tmp_path: Path) -> None:
    """Of an endless answer the beginning is logged; the caller gets all of it."""
    event = EVENTS[0].replace(b'"0"', b'"%s"' % (b"x" * 1_000_000))

    async def ask(made: World) -> None:
        await made.ask()
        assert made.sent.count(b"data:") == 12

    (told,) = run(tmp_path, ask, Said(events=[*[event] * 10, LAST, DONE]))

    assert told.ended == "complete"
    assert len(event) * 8 == sum(map(len, told.answer)) <= MAX_LOGGED_BYTES


def test_callers_who_share_a_call_are_told_of_one_by_one(tmp_path: Path) -> None:
    """Each has his exchange and the whole answer, whatever his form; one who leaves has left."""

    async def ask(made: World) -> None:
        callers = [made.ask(), made.ask(after=b'"0"'), made.ask(SIMPLE), made.ask(stream=False), made.ask()]
        await asyncio.gather(*callers)
        assert made.regions.asked in ("aa", "a")  # the simple endpoint is a route of its own

    slow = (0.02, Said(events=[*EVENTS, *[b": still here\n\n"] * 2000, LAST, TOOK, DONE]))
    told = run(tmp_path, ask, slow, COALESCE="true")

    assert sorted(one.ended for one in told) == ["client left", *["complete"] * 4]
    assert sorted(one.attempts for one in told) == [0, 0, 0, 1, 1]
    assert [one.cache for one in told].count("shared") == 3
    texts = {text_of(one) for one in told if one.ended == "complete"}
    assert texts == {"01234"}


def test_callers_who_share_a_failure_are_told_of_one_by_one(tmp_path: Path) -> None:
    """What breaks, breaks for each of them."""

    async def ask(made: World) -> None:
        await asyncio.gather(*(made.ask() for _ in range(3)))

    told = run(tmp_path, ask, (0.02, Said(events=[*EVENTS, CutShort("broke")])), COALESCE="true")

    assert [(one.ended, one.error_code) for one in told] == [("broken", "answer_cut_short")] * 3


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
@pytest.mark.parametrize("name", ["whole", "ended early", "broke", "an error"])
def test_stream_that_began_with_pings_ends_as_its_events_say(tmp_path: Path, path: str, name: str) -> None:
    """The same where the caller's stream has begun before the upstream's."""
    events, ended, code = streams()[name]

    async def ask(made: World) -> None:
        await made.ask(path)
        assert made.sent.startswith(b": ping")

    (told,) = run(tmp_path, ask, (0.05, Said(events=events)), PING_INTERVAL="0.01")

    assert (told.ended, told.status, told.error_code) == (ended, 200, code)


@pytest.mark.parametrize("path", [CHAT, SIMPLE])
def test_refusal_after_pings_is_one(tmp_path: Path, path: str) -> None:
    """What can only be told in an event is refused all the same, with its true status."""
    refusal = Said(429, body=ERROR.removeprefix(b"data: ").strip() % b"x")
    (told,) = run(tmp_path, once(path=path), (0.05, refusal), PING_INTERVAL="0.01")

    assert (told.ended, told.status) == ("refused", 429)


def test_meta_for_everybody(tmp_path: Path) -> None:
    """`LOG_CHAT=meta` leaves the words of all callers out."""
    (told,) = run(tmp_path, once(), Said(events=[*EVENTS, LAST, DONE]), LOG_CHAT="meta")

    assert told.has_words is False
    assert b'"hi"' not in line_of(told)


@pytest.mark.parametrize("coalesce", ["true", "false"])
def test_crowd_that_comes_and_goes_leaves_nothing(tmp_path: Path, coalesce: str) -> None:
    """Whoever leaves, and whenever: each exchange is told of once, and nothing holds on to it."""
    leaves = (None, b"", b'"0"', None, b'"3"')
    count = 60

    async def ask(made: World) -> None:
        for number in range(0, count, 12):
            asks = [
                made.ask((CHAT, SIMPLE)[one % 2], after=leaves[one % 5], top_p=one % 4 / 4)
                for one in range(number, number + 12)
            ]
            await asyncio.gather(*asks)

    events = [*EVENTS[:2], *[b": still here\n\n"] * 50, *EVENTS[2:], LAST, DONE]
    told = run(tmp_path, ask, (0.02, Said(events=events)), COALESCE=coalesce, CACHE_CHAT_COMPLETION=coalesce)

    assert len(told) == count
    assert len({id(one) for one in told}) == count
    assert {one.ended for one in told} == {"complete", "client left"}
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, HeardBody | Ended)] == []
