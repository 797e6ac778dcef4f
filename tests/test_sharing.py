"""Calls that share one: who makes it, who joins, who may leave, and what each of them is told."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from chat_api.errors import CutShort, GatewayError, Throttled, UpstreamRefusal
from chat_api.judging import RelayedBody
from chat_api.sharing import Sharing
from chat_api.types import Reply
from tests.scripted import settled
from tests.sharers import HEADERS, HERE, KEY, Arriving, Caller, Upstream, assert_over, callers, in_loop
from tests.test_relayed_body import Closing
from tests.wires import made

REFUSAL = UpstreamRefusal("no", status=400, type="t", code="c", param="p", inner={"a": 1}, headers=((b"x", b"y"),))


@contextmanager
def no_cycles() -> Iterator[None]:
    """Nothing is left that only the garbage collector would find."""
    gc.collect()
    gc.disable()
    try:
        yield
        assert gc.collect() == 0
    finally:
        gc.enable()


@in_loop
async def test_identical_calls_share_one() -> None:
    """The first caller leads, the others join, and all get the same answer."""
    sharing, upstream = Sharing(), Upstream()
    found = await callers(sharing, upstream, 3)
    assert sharing.state() == {"flights": 1, "joined": 2}
    upstream.answer(b'{"a":1}')
    await settled()

    assert upstream.asked == 1
    assert [one.joined for one in found] == [False, True, True]
    assert [one.reply for one in found] == [Reply(200, HEADERS, b'{"a":1}', HERE)] * 3
    assert_over(sharing)
    assert sharing.state() == {"flights": 0, "joined": 2}


@in_loop
async def test_other_calls_do_not_share() -> None:
    """Calls with other keys have upstream calls of their own."""
    sharing, upstream = Sharing(), Upstream()
    tasks = [asyncio.create_task(sharing.reply(key, upstream.ask)) for key in (b"a", b"b")]
    await settled()
    assert upstream.asked == 2
    for number in range(2):
        upstream.answer(b"%d" % number, number)

    replies = [await task for task in tasks]
    assert [(reply.body, flight) for reply, flight in replies] == [(b"0", None), (b"1", None)]


@in_loop
async def test_whole_answer_is_not_remembered() -> None:
    """From the moment that an answer is there, the same call is a new one."""
    sharing, upstream = Sharing(), Upstream()
    await callers(sharing, upstream, 1)
    upstream.answer(b"1")
    await settled()
    (other,) = await callers(sharing, upstream, 1)
    upstream.answer(b"2")
    await settled()

    assert (upstream.asked, other.joined, other.body) == (2, False, b"2")


@in_loop
async def test_who_leads_may_leave() -> None:
    """The upstream call goes on for whoever joined, though its first caller has left."""
    sharing, upstream = Sharing(), Upstream()
    first, second = await callers(sharing, upstream, 2)
    await first.leave()
    upstream.answer(b"1")
    await settled()

    assert first.task.cancelled()
    assert (second.body, upstream.cancelled) == (b"1", 0)


@in_loop
async def test_last_to_leave_cancels_the_call() -> None:
    """When nobody waits any more the call is cancelled, and it has ended before the last caller has."""
    sharing, upstream = Sharing(), Upstream()
    first, second = await callers(sharing, upstream, 2)
    await second.leave()
    assert upstream.cancelled == 0
    await first.leave()
    assert upstream.cancelled == 1
    await settled()
    assert_over(sharing)


@in_loop
async def test_dying_call_is_not_joined() -> None:
    """While a call that was given up is still being cancelled, the same call is a new one."""
    sharing, unwound = Sharing(), asyncio.Event()
    dying = Upstream(unwound.wait())
    (first,) = await callers(sharing, dying, 1)
    first.task.cancel()
    await settled()
    assert (dying.cancelled, first.task.done(), sharing.state()["flights"]) == (0, False, 1)
    upstream = Upstream()
    (second,) = await callers(sharing, upstream, 1)
    upstream.answer(b"2")
    unwound.set()
    await settled()

    assert (second.joined, second.body, dying.cancelled) == (False, b"2", 1)
    assert_over(sharing)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("steps", range(6))
@in_loop
async def test_leaving_at_any_moment(steps: int, is_stream: bool) -> None:
    """At whatever step of the loop the only caller leaves, the call is cancelled, or the body that came is closed."""
    sharing, upstream, body = Sharing(), Upstream(), Arriving()
    (caller,) = await callers(sharing, upstream, 1)
    upstream.answer(body if is_stream else b"{}")
    for _ in range(steps):
        await asyncio.sleep(0)
    await caller.leave()

    assert upstream.cancelled + body.closed == 1 or not is_stream
    await settled()
    assert_over(sharing)


@pytest.mark.parametrize("steps", range(4))
@in_loop
async def test_leaving_before_the_call_has_begun(steps: int) -> None:
    """Who leaves at once leaves nothing behind."""
    sharing, upstream = Sharing(), Upstream()
    caller = Caller(sharing, upstream.ask)
    for _ in range(steps):
        await asyncio.sleep(0)
    await caller.leave()
    await settled()

    assert upstream.cancelled == upstream.asked
    assert_over(sharing)


@in_loop
async def test_failure_reaches_all() -> None:
    """Each caller gets an error of his own, which says the same; what one adds to it the others do not see."""
    sharing, upstream = Sharing(), Upstream()
    found = await callers(sharing, upstream, 3)
    upstream.fail(REFUSAL)
    await settled()
    errors = [one.error for one in found]

    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, UpstreamRefusal)
        assert str(error) == "no"
        assert vars(error) == vars(REFUSAL)
    assert isinstance(errors[0], GatewayError)
    errors[0].headers += ((b"a", b"b"),)
    assert all(isinstance(error, GatewayError) and error.headers == ((b"x", b"y"),) for error in errors[1:])
    assert_over(sharing)


@in_loop
async def test_failure_is_not_remembered() -> None:
    """The next call with the same key begins anew."""
    sharing, upstream = Sharing(), Upstream()
    await callers(sharing, upstream, 2)
    upstream.fail(Throttled("later"))
    await settled()
    (other,) = await callers(sharing, upstream, 1)
    upstream.answer(b"1")
    await settled()

    assert (upstream.asked, other.body) == (2, b"1")


@in_loop
async def test_failure_has_the_same_cause_for_all() -> None:
    """What an error was raised from is told with each of them."""
    sharing, upstream, cause = Sharing(), Upstream(), OSError(1, "x")
    found = await callers(sharing, upstream, 2)
    error = CutShort("broke")
    error.__cause__ = cause
    upstream.fail(error)
    await settled()

    assert all(one.error is not None and one.error.__cause__ is cause for one in found)


@in_loop
async def test_fault_of_ours_is_told_once_with_its_trace() -> None:
    """What is no error of the tree reaches the first caller as it is, the others in words."""
    sharing, upstream = Sharing(), Upstream()
    found = await callers(sharing, upstream, 3)
    upstream.fail(UnicodeDecodeError("utf-8", b"", 0, 1, "why"))
    await settled()

    assert isinstance(found[0].error, UnicodeDecodeError)
    for one in found[1:]:
        assert type(one.error) is GatewayError
        assert str(one.error) == "the call that this one shared failed: UnicodeDecodeError"


@pytest.mark.parametrize("steps", [1, 10])
@in_loop
async def test_closing_ends_all_who_wait(steps: int) -> None:
    """At shutdown whoever waits for a reply is cancelled, whether its call has begun or not; the call has ended."""
    sharing, upstream = Sharing(), Upstream()
    found = [Caller(sharing, upstream.ask) for _ in range(3)]
    for _ in range(steps):
        await asyncio.sleep(0)
    await sharing.aclose()
    assert upstream.cancelled == upstream.asked == (steps == 10)
    await settled()

    assert all(one.task.cancelled() for one in found)
    assert_over(sharing)
    await sharing.aclose()


@in_loop
async def test_closing_ends_all_who_read() -> None:
    """At shutdown no stream looks complete, whether its reader waits for it or comes back later; its body is closed."""
    sharing, upstream = Sharing(), Upstream()
    waiting, later = await callers(sharing, upstream, 2)
    later.gate.clear()
    body = await upstream.stream()
    body.say(b"a")
    await settled()
    await sharing.aclose()
    assert body.closed == 1
    later.gate.set()
    await settled()

    assert waiting.task.cancelled()
    assert later.task.cancelled()
    assert_over(sharing)


def test_who_ends_the_loop_ends_nobody_else() -> None:
    """An exit within the call is the loop's to end; those who wait are cancelled."""
    found: list[Caller] = []

    async def main() -> None:
        sharing, upstream = Sharing(), Upstream()
        found.extend(await callers(sharing, upstream, 2))
        upstream.fail(SystemExit(3))
        await settled()

    with asyncio.Runner() as runner:
        with pytest.raises(SystemExit):
            runner.run(main())
        runner.run(settled())
        assert all(one.task.cancelled() for one in found)


@in_loop
async def test_answer_of_a_cancelled_call_is_closed() -> None:
    """A stream that comes although its call was cancelled is not read: its body is closed."""
    sharing, body = Sharing(), Arriving()

    async def stubborn() -> Reply:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        return Reply(200, HEADERS, body, HERE)

    caller = Caller(sharing, stubborn)
    await settled()
    await caller.leave()

    assert (caller.task.cancelled(), body.closed) == (True, 1)
    await settled()
    assert_over(sharing)


@in_loop
async def test_complete_answer_leaves_its_connection() -> None:
    """A relayed body that is read to its last event is read to its end too, and its connection serves again."""
    sharing, upstream, told = Sharing(), Upstream(), Closing()
    response, wire = made()
    task = asyncio.create_task(sharing.reply(KEY, upstream.ask))
    await settled()
    upstream.answer(RelayedBody(told, [b"held "], response.chunks()))
    body = (await task)[0].body
    assert not isinstance(body, bytes)
    response.feed(b"[DONE]")
    assert await anext(aiter(body)) == b"held [DONE]"
    body.expect_end()
    closing = asyncio.create_task(body.aclose())
    await settled()
    assert told.closed == 0
    response.end()
    await closing

    assert (wire.said, told.closed) == ([], 1)
    assert_over(sharing)


@in_loop
async def test_end_that_does_not_come_is_waited_for_briefly() -> None:
    """After a complete answer its body's end is waited for, but not for ever; nobody joins meanwhile."""
    sharing, upstream = Sharing(), Upstream()
    task = asyncio.create_task(sharing.reply(KEY, upstream.ask))
    await settled()
    arriving = Arriving()
    upstream.answer(arriving)
    body = (await task)[0].body
    assert not isinstance(body, bytes)
    body.expect_end()
    assert arriving.is_end_next
    started = asyncio.get_running_loop().time()
    closing = asyncio.create_task(body.aclose())
    await asyncio.sleep(0)
    assert KEY not in sharing._open
    await closing

    assert asyncio.get_running_loop().time() - started == pytest.approx(1.0)
    assert arriving.closed == 1


async def told(sharing: Sharing, upstream: Upstream) -> type[BaseException] | bytes:
    """What a caller is told, of which nothing is kept here."""
    try:
        reply, _ = await sharing.reply(KEY, upstream.ask)
        body = reply.body
        if isinstance(body, bytes):
            return body
        try:
            return b"".join([piece async for piece in body])
        finally:
            await body.aclose()
    except Exception as error:
        return type(error)


async def leaves(sharing: Sharing, upstream: Upstream, break_off: Callable[[], None], *, first: bool) -> None:
    """Read nothing of a stream that breaks, while one reads or when he has left."""
    body = (await sharing.reply(KEY, upstream.ask))[0].body
    assert not isinstance(body, bytes)
    if first:
        body.expect_end()
        closing = asyncio.create_task(body.aclose())
        await settled()
        break_off()
        await closing
    else:
        break_off()
        await settled()
        await body.aclose()


@pytest.mark.parametrize("first", [False, True])
@in_loop
async def test_break_that_nobody_hears_of_is_not_kept(first: bool) -> None:
    """An error that no reader has looked at keeps nothing alive."""
    with no_cycles():
        sharing, upstream, body = Sharing(), Upstream(), Arriving()
        task = asyncio.create_task(leaves(sharing, upstream, lambda: body.say(error=CutShort("why")), first=first))
        await settled()
        upstream.answer(body)
        await task
        upstream.answers.clear()
        assert body.closed == 1


@pytest.mark.parametrize("error", [None, CutShort, RuntimeError])
@pytest.mark.parametrize("is_stream", [False, True])
@in_loop
async def test_nothing_is_kept(error: type[Exception] | None, is_stream: bool) -> None:
    """When all is over nothing refers to the answer or to its readers, not even in circles."""
    with no_cycles():
        sharing, upstream = Sharing(), Upstream()
        tasks = [asyncio.create_task(told(sharing, upstream)) for _ in range(3)]
        await settled()
        flight = weakref.ref(sharing._open[KEY].task)
        if is_stream:
            (await upstream.stream()).response.end(error("why") if error else None)  # type: ignore[arg-type]  # a fault
        elif error is not None:
            upstream.fail(error("why"))
        else:
            upstream.answer(b"")
        await settled()
        found = [task.result() for task in tasks]
        assert found == ([RuntimeError, GatewayError, GatewayError] if error is RuntimeError else [error or b""] * 3)
        upstream.answers.clear()  # they have the error
        assert flight() is None


@in_loop
async def test_what_a_sink_raises_is_not_kept() -> None:
    """An error of a reader's own that came with a chunk keeps nothing alive."""

    def fails(_: bytes) -> Awaitable[object] | None:
        raise LookupError

    async def failing() -> None:
        body = (await sharing.reply(KEY, upstream.ask))[0].body
        assert not isinstance(body, bytes)
        with contextlib.suppress(LookupError):
            await body.flow(fails)
        await body.aclose()

    sharing, upstream = Sharing(), Upstream()
    with no_cycles():
        task = asyncio.create_task(failing())
        await settled()
        (await upstream.stream()).say(b"a")
        await task


@pytest.mark.parametrize("is_answered", [False, True])
@in_loop
async def test_what_was_given_up_is_not_kept(is_answered: bool) -> None:
    """A call that was cancelled, or whose body was, keeps nothing alive."""
    with no_cycles():
        sharing, upstream, body = Sharing(), Upstream(), Arriving()
        tasks = [asyncio.create_task(told(sharing, upstream)) for _ in range(2)]
        await settled()
        if is_answered:
            upstream.answer(body)
            await settled()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert upstream.cancelled + body.closed == 1
