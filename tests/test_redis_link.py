"""The way to Redis, over a client that a test plays: who waits for what, and for how long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError, TryAgainError

from chat_api.stores.redis_client import Command, is_outage
from chat_api.stores.redis_link import (
    CLOSED,
    COMPLAINT_SECONDS,
    DOWN,
    FIRST_SECONDS,
    MAX_BATCH,
    MAX_QUEUED,
    NEW,
    PROBE_SECONDS,
    TURNS,
    UP,
    Down,
    Link,
)
from tests.wires import run_skipping

TIMEOUT = 0.5
GONE = Unreachable("gone")


class Played:
    """A client whose server does what the test says: an exception is raised, a number is waited for."""

    def __init__(self) -> None:
        self.opening: object = None
        self.answering: object = None
        self.looking: object = None
        self.opened = self.looked = self.closed = 0
        self.batches: list[list[Command]] = []
        self.held: asyncio.Event | None = None

    async def _do(self, what: object) -> None:
        if isinstance(what, Exception):
            raise what
        await asyncio.sleep(what if isinstance(what, float) else 0)

    async def open(self) -> None:
        """Connect."""
        self.opened += 1
        await self._do(self.opening)

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Echo each command's first word; one that begins with ! is refused."""
        self.batches.append(list(commands))
        if self.held is not None:
            await self.held.wait()
            for _ in range(TURNS // 2):
                await asyncio.sleep(0)
        await self._do(self.answering)
        return [ResponseError(f"no {word!s}") if str(word).startswith("!") else word for word, *_ in commands]

    async def look(self) -> None:
        """See whether it answers."""
        self.looked += 1
        await self._do(self.looking)

    async def aclose(self) -> None:
        """Let go of every connection."""
        self.closed += 1


class Asker:
    """What was asked over a link, and what came of it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.got: list[object] = []

    def ask(self, *words: str) -> list[asyncio.Future[object]]:
        """Ask each of them."""
        return [self._ask(word) for word in words]

    def _ask(self, word: str) -> asyncio.Future[object]:
        reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def done(there: object) -> None:
            self.got.append(there)
            reply.set_result(there)

        self.link.ask((word,), done)
        return reply

    async def asked(self, *words: str) -> list[object]:
        """Ask, and wait for the replies."""
        return [await reply for reply in self.ask(*words)]


def play(main: Callable[[Played, Link, Asker], Awaitable[None]]) -> None:
    """Run a test over a played client, in no time."""

    async def run() -> None:
        client = Played()
        link = Link(client, timeout_seconds=TIMEOUT, name="redis:6379")
        await main(client, link, Asker(link))
        await link.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_skipping(run())


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


def test_one_round_trip_for_all_that_is_asked_together() -> None:
    """What is asked at the same moment, and while it is being asked, goes out in two batches, in its order."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        assert await asker.asked("connected") == ["connected"]
        client.held = asyncio.Event()
        asker.ask("a", "b")
        await asyncio.sleep(0.01)
        asker.ask("c", "d")
        await asyncio.sleep(0.01)
        client.held.set()
        await asker.asked("e")
        assert client.batches[1:] == [[("a",), ("b",)], [("c",), ("d",), ("e",)]]
        assert asker.got == ["connected", "a", "b", "c", "d", "e"]

    play(main)


def test_batches_are_bounded() -> None:
    """However much is asked, a batch has its measure."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked(*map(str, range(MAX_BATCH + 1)))
        assert [len(batch) for batch in client.batches] == [MAX_BATCH, 1]

    play(main)


def test_queue_is_bounded() -> None:
    """What is asked beyond all measure is told at once that it will not be."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        client.opening = TIMEOUT / 2
        asker.ask(*map(str, range(MAX_QUEUED + 1)))
        assert [type(reply) for reply in asker.got] == [Down]

    play(main)


def test_connects_first() -> None:
    """What is asked before it is connected waits for that."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        client.opening = TIMEOUT / 2
        assert link.state is NEW
        assert await asker.asked("a") == ["a"]
        assert (link.state, client.opened) == (UP, 1)

    play(main)


def test_does_not_wait_long_for_the_first_connection() -> None:
    """Where nobody answers it is down after the timeout, and who waited is told."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        client.opening = 100.0
        began = now()
        [reply] = await asker.asked("a")
        assert isinstance(reply, Down)
        assert now() - began == pytest.approx(TIMEOUT, abs=0.01)
        assert link.state is DOWN

    play(main)


@pytest.mark.parametrize(
    ("opening", "state"),
    [
        pytest.param(FIRST_SECONDS * 0.9, UP, id="slow"),
        pytest.param(100.0, DOWN, id="silent"),
        pytest.param(GONE, DOWN, id="gone"),
    ],
)
def test_waits_longer_before_anybody_calls(opening: object, state: str) -> None:
    """Who connects ahead of all calls knows what came of it, and grants the server more than a call's time."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        client.opening = opening
        began = now()
        await link.connect()
        assert link.state is state
        assert now() - began <= FIRST_SECONDS + 0.01

    play(main)


def test_nobody_waits_for_longer_than_the_timeout() -> None:
    """Neither who is being asked for, nor who came while that went on."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        client.answering = 100.0
        began = now()
        asker.ask("a")
        await asyncio.sleep(TIMEOUT * 0.9)
        await asker.asked("b")
        assert now() - began == pytest.approx(TIMEOUT, abs=0.01)
        assert [type(reply) for reply in asker.got[1:]] == [TimeoutError, Down]

    play(main)


def test_what_waited_behind_a_slow_answer_has_hardly_more_time() -> None:
    """The time of a command begins when it is asked, but half of it the server has once it is sent."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        client.answering = TIMEOUT * 0.8
        asker.ask("a")
        await asyncio.sleep(TIMEOUT * 0.1)
        began = now()
        [reply] = await asker.asked("b")
        assert isinstance(reply, TimeoutError)
        assert now() - began == pytest.approx(TIMEOUT * 1.2, abs=0.01)
        assert asker.got[1] == "a"

    play(main)


def test_down_tells_at_once() -> None:
    """While it is down nobody waits at all, and nothing is kept."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        client.answering = client.opening = GONE
        assert await asker.asked("a") == [GONE]
        asker.ask("b")
        assert isinstance(asker.got[-1], Down)
        assert (link.state, link.failures) == (DOWN, 1)
        await asyncio.sleep(1.0)
        assert link.down_seconds == pytest.approx(1.0, abs=0.05)

    play(main)


@pytest.mark.parametrize("opening", [GONE, 100.0], ids=["refuses", "hangs"])
def test_comes_back(opening: object) -> None:
    """A server that answers again is asked again within two looks, and everything is counted under a new number."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        number = link.number
        client.opening = client.answering = opening
        await asker.asked("a")
        await asyncio.sleep(10)
        client.opening = client.answering = None
        began, is_up = now(), asyncio.Event()
        link.on_up = is_up.set
        await is_up.wait()
        assert now() - began <= TIMEOUT + PROBE_SECONDS + 0.01
        assert (await asker.asked("b"), link.number) == (["b"], number + 1)

    play(main)


def test_background_has_more_patience() -> None:
    """A server that takes longer to connect to than any call may wait is reached nevertheless, while nobody waits."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        link.timeout_seconds = PROBE_SECONDS / 10
        client.opening = PROBE_SECONDS / 2
        [reply] = await asker.asked("a")
        assert isinstance(reply, Down | TimeoutError)
        await asyncio.sleep(2 * PROBE_SECONDS)
        assert await asker.asked("b") == ["b"]

    play(main)


def test_broken_connection_is_replaced_at_once() -> None:
    """Where only the connection broke, a moment later there is another one."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        await asyncio.sleep(10)
        client.answering = GONE
        assert await asker.asked("a") == [GONE]
        client.answering = None
        await asyncio.sleep(0.01)
        assert await asker.asked("b") == ["b"]

    play(main)


def test_server_that_takes_and_drops_connections_is_left_alone_between() -> None:
    """A server that can be opened but not asked is tried four times a second, not in a frenzy."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        client.answering = client.looking = GONE
        for _ in range(1000):
            asker.ask("a")
            await asyncio.sleep(0.01)
        assert client.opened <= 10 / PROBE_SECONDS + 2

    play(main)


def test_idle_connection_is_looked_at() -> None:
    """That a server has gone is found out before anybody asks."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        await asyncio.sleep(10 * PROBE_SECONDS)
        assert 5 <= client.looked <= 10
        client.looking = client.opening = GONE
        await asyncio.sleep(PROBE_SECONDS * 1.1)
        assert link.state is DOWN

    play(main)


def test_server_may_have_been_held_up_as_well() -> None:
    """Where the process stood still, the server has as long again to answer, but no longer than the timeout."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        client.held = asyncio.Event()
        loop = asyncio.get_running_loop()

        def held_up() -> None:
            loop._clock.now += 10 * TIMEOUT  # type: ignore[attr-defined]

        for seconds in (0.9, 1.1):
            client.held.clear()
            asker.ask("a")
            await asyncio.sleep(0.01)
            loop.call_soon(held_up)
            loop.call_at(now() + (10 + seconds) * TIMEOUT, client.held.set)
            await asyncio.sleep(12 * TIMEOUT)
        _, in_time, too_late = asker.got
        assert in_time == "a"
        assert isinstance(too_late, TimeoutError)

    play(main)


def test_late_process_does_not_blame_the_server() -> None:
    """What has come while the process itself was held up has come in time."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        client.held = asyncio.Event()
        asker.ask("a")
        await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()

        def held_up() -> None:
            loop._clock.now += 10 * TIMEOUT  # type: ignore[attr-defined]
            assert client.held is not None
            client.held.set()

        loop.call_soon(held_up)
        await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert asker.got[1:] == ["a"]
        assert link.state is UP

    play(main)


def test_server_has_its_time_after_a_hold_up() -> None:
    """Where the process was held up before it could ask, as by a burst of calls, the server is not down for that."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        client.answering = TIMEOUT * 0.4
        asker.ask("a")
        asyncio.get_running_loop()._clock.now += 10 * TIMEOUT  # type: ignore[attr-defined]
        await asyncio.sleep(TIMEOUT)
        assert asker.got[1:] == ["a"]
        assert link.state is UP

    play(main)


def test_refused_command_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    """A command that the server refuses fails alone; one line a minute tells of it."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        for _ in range(3):
            first, refused, last = await asker.asked("a", "!b", "c")
            assert (first, str(refused), last) == ("a", "no !b", "c")
        assert (link.state, link.failures) == (UP, 3)
        assert [record.getMessage() for record in caplog.records] == ["Redis at redis:6379 refused a command: no !b"]
        await asyncio.sleep(COMPLAINT_SECONDS)
        await asker.asked("!d")
        assert len(caplog.records) == 2

    play(main)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(ResponseError("WRONGTYPE Operation against a key"), False, id="wrong-type"),
        pytest.param(ResponseError("user_script:1: wrong"), False, id="script"),
        pytest.param(NoPermissionError("this user has no permissions"), False, id="no-permission"),
        pytest.param(TryAgainError("Multiple keys request during rehashing of slot"), False, id="slot-moves"),
        pytest.param(ReadOnlyError("You can't write against a read only replica."), True, id="replica"),
        pytest.param(OutOfMemoryError("command not allowed"), True, id="out-of-memory"),
        pytest.param(ResponseError("MISCONF Redis is configured to save"), True, id="cannot-save"),
        pytest.param(ResponseError("NOREPLICAS Not enough good replicas"), True, id="no-replicas"),
        pytest.param(GONE, True, id="connection"),
        pytest.param(OSError("broken"), True, id="socket"),
    ],
)
def test_what_is_an_outage(error: Exception, expected: bool) -> None:
    """What a server says of itself is an outage, what it says of one command is not."""
    assert is_outage(error) is expected


def test_reply_of_a_server_that_cannot_be_written_to() -> None:
    """It is down from then on, and opened anew: behind its name there may be another server by then."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        read_only = ReadOnlyError("replica")

        async def refuse(commands: Sequence[Command]) -> list[Any]:
            return [read_only for _ in commands]

        client.run = refuse  # type: ignore[method-assign]
        client.opening = GONE
        assert await asker.asked("a") == [read_only]
        await asyncio.sleep(0.01)
        assert link.state is DOWN

    play(main)


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it goes down, one when it is back: for how long, and how many calls were not counted."""
    caplog.set_level(logging.INFO)

    async def main(client: Played, link: Link, asker: Asker) -> None:
        link.not_counted = 5
        await asker.asked("connected")
        client.answering = client.opening = GONE
        for _ in range(10):
            await asker.asked("a")
            link.not_counted += 1
            await asyncio.sleep(1)
        client.answering = client.opening = None
        await asyncio.sleep(1)
        down, back = [record.getMessage() for record in caplog.records]
        assert down == "Redis at redis:6379 cannot be asked: gone"
        assert back.startswith("Redis at redis:6379 answers again after 10.")
        assert back.endswith(" s; 10 calls were not counted")

    play(main)


def test_comes_up_with_a_call() -> None:
    """Whoever has something to put right hears of it, the first time and every other."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        heard: list[int] = []
        link.on_up = lambda: heard.append(link.number)
        await asker.asked("connected")
        client.answering = GONE
        await asker.asked("a")
        client.answering = None
        await asyncio.sleep(1)
        assert heard == [1, 2]

    play(main)


def test_close_asks_what_is_left() -> None:
    """What was asked before it is closed is asked; what comes later is told at once."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await asker.asked("connected")
        client.answering = TIMEOUT / 2
        asker.ask("a", "b")
        await link.aclose()
        assert asker.got[1:] == ["a", "b"]
        asker.ask("c")
        assert isinstance(asker.got[-1], Down)
        assert (link.state, client.closed) == (CLOSED, 2)
        await link.aclose()

    play(main)


@pytest.mark.parametrize("state", [NEW, UP, DOWN])
def test_close_does_not_wait_for_a_dead_server(state: str) -> None:
    """Who is still waiting then is told."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        if state is not NEW:
            await asker.asked("connected")
        if state is DOWN:
            client.looking = GONE
        client.opening = client.answering = 100.0
        await asyncio.sleep(1.1)
        assert link.state == state
        asker.ask("a")
        began = now()
        await link.aclose()
        assert now() - began <= (0 if state is DOWN else TIMEOUT) + 0.01
        assert isinstance(asker.got[-1], Exception)

    play(main)


def test_link_that_was_never_used() -> None:
    """A link that nobody asked closes without having connected."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        await link.aclose()
        assert (client.opened, client.closed, link.down_seconds) == (0, 0, 0.0)

    play(main)


def test_asker_that_fails_hurts_no_other() -> None:
    """Who cannot take his reply does not keep others from theirs: they are told something."""

    async def main(client: Played, link: Link, asker: Asker) -> None:
        def fail(_: object) -> None:
            raise RuntimeError("a fault of ours")

        link.ask(("a",), fail)
        replies = await asker.asked("b")
        assert len(replies) == 1

    play(main)
