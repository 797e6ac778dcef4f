"""A stream that is shared: each reader has it from its beginning, at his own pace, and it takes bounded memory."""

import asyncio
from collections.abc import Awaitable

import pytest

from chat_api.errors import CutShort, GatewayError, UpstreamError
from chat_api.sharing import Sharing
from chat_api.sharing.body import CHUNK_BYTES, PIECE_BYTES, SharedBody
from chat_api.types import ByteStream
from tests.scripted import settled
from tests.sharers import KEY, Arriving, Caller, Upstream, assert_over, callers, in_loop

KIB = 1024
BOUND = 64 * KIB  # of these tests
AHEAD = 8 * KIB


async def streamed(
    count: int, *slow: int, flows: bool = True, bound: int = BOUND
) -> tuple[Sharing, Upstream, Arriving, list[Caller]]:
    """Callers of one stream, some of whom read nothing after their first piece."""
    sharing, upstream = Sharing(bound, AHEAD), Upstream()
    found = await callers(sharing, upstream, count, flows=flows)
    for number in slow:
        found[number].gate.clear()
    return sharing, upstream, await upstream.stream(), found


async def say(body: Arriving, count: int, size: int = KIB) -> bytes:
    """So many chunks arrive, one in each turn, each of its own bytes."""
    chunks = [bytes([number % 251]) * size for number in range(count)]
    for chunk in chunks:
        body.say(chunk)
        await settled()
    return b"".join(chunks)


def held(sharing: Sharing) -> int:
    """How much of its only stream is held."""
    (flight,) = sharing._flights
    assert flight._stream is not None
    return sum(map(len, flight._stream.chunks))


def held_by(caller: Caller) -> list[bytes]:
    """What is held of the stream that a caller reads."""
    assert caller.reply is not None
    assert isinstance(caller.reply.body, SharedBody)
    return caller.reply.body._source().chunks


async def own(sharing: Sharing, upstream: Upstream) -> ByteStream:
    """The body of one more caller, who decides himself when he reads."""
    reply, _ = await sharing.reply(KEY, upstream.ask)
    assert not isinstance(reply.body, bytes)
    return reply.body


@pytest.mark.parametrize("flows", [True, False])
@in_loop
async def test_stream_begins_at_its_beginning_for_all(flows: bool) -> None:
    """Who joins while it arrives gets it from its first byte, then as it comes."""
    sharing, upstream, body, found = await streamed(2, flows=flows)
    body.say(b"a", b"b")
    await settled()
    found += await callers(sharing, upstream, 2, flows=flows)
    assert [one.body for one in found] == [b"ab"] * 4
    body.say(b"c")
    await settled()
    assert [one.body for one in found] == [b"abc"] * 4
    assert not any(one.is_whole for one in found)
    body.say(end=True)
    await settled()

    assert all(one.is_whole for one in found)
    assert [one.joined for one in found] == [False, True, True, True]
    assert (upstream.asked, body.closed) == (1, 1)
    assert_over(sharing)


@in_loop
async def test_chunk_goes_on_in_the_same_turn() -> None:
    """Who waits for a chunk has it the moment it arrives, without a step of the loop."""
    _, _, body, found = await streamed(2)
    await settled()
    body.say(b"a")

    assert [one.got for one in found] == [[b"a"], [b"a"]]
    assert found[0].got[0] is found[1].got[0]


@in_loop
async def test_empty_chunk_is_none() -> None:
    """A piece without bytes is nobody's end."""
    _, _, body, found = await streamed(1)
    body.say(b"", b"a", b"")
    await settled()
    body.say(b"b", end=True)
    await settled()

    assert (found[0].got, found[0].is_whole) == ([b"a", b"b"], True)


@in_loop
async def test_slow_reader_catches_up() -> None:
    """Who could not take more for a while gets what has come meanwhile in one piece, then each chunk as it comes."""
    _, _, body, (fast, slow) = await streamed(2, 1)
    for chunk in (b"a", b"b", b"c"):
        body.say(chunk)
        await settled()
    assert (fast.got, slow.got) == ([b"a", b"b", b"c"], [b"a"])
    slow.gate.set()
    await settled()
    body.say(b"d")
    await settled()

    assert slow.got == [b"a", b"bc", b"d"]


@in_loop
async def test_who_catches_up_lets_others_have_their_turn() -> None:
    """What is far behind is read in pieces, with a turn of the loop between them."""
    sharing, upstream, body, _ = await streamed(1, bound=100 * PIECE_BYTES)
    await say(body, 10, PIECE_BYTES)
    for flows in (True, False):
        (late,) = await callers(sharing, upstream, 0) or [Caller(sharing, upstream.ask, flows=flows)]
        turns = 0
        while sum(map(len, late.got)) < 10 * PIECE_BYTES:
            await asyncio.sleep(0)
            turns += 1
        assert 8 < turns < 15
        assert max(map(len, late.got)) < 2 * PIECE_BYTES


@in_loop
async def test_what_a_sink_raises_is_its_readers_own() -> None:
    """A reader whose sink fails hears of it, at once or while he catches up; the others go on."""
    sharing, upstream, body, (other,) = await streamed(1)

    def fails(_: bytes) -> Awaitable[object] | None:
        raise LookupError

    live = await own(sharing, upstream)
    task = asyncio.create_task(live.flow(fails))
    await settled()
    body.say(b"a")
    with pytest.raises(LookupError):
        await task
    late = await own(sharing, upstream)
    with pytest.raises(LookupError):
        await late.flow(fails)
    body.say(b"b", end=True)
    await settled()

    assert (other.body, other.is_whole) == (b"ab", True)
    await live.aclose()
    await late.aclose()
    assert_over(sharing)


@in_loop
async def test_cancelled_reader_leaves_nothing_to_be_awaited() -> None:
    """What a sink returned to a reader who is cancelled in the same turn is closed, and he has that chunk."""
    sharing, upstream, body, (other,) = await streamed(1)
    shared = await own(sharing, upstream)
    task = asyncio.create_task(shared.flow(lambda _: asyncio.sleep(0)))
    await settled()
    body.say(b"a")
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    body.say(b"b")
    assert await anext(aiter(shared)) == b"b"
    waiting = asyncio.create_task(shared.flow(lambda _: None))
    await settled()
    waiting.cancel()
    await other.leave()
    await say(body, 30)

    assert held(sharing) < AHEAD + 2 * KIB  # nobody waits for more


@in_loop
async def test_stream_that_breaks_reaches_all() -> None:
    """Each reader gets what had come, slow or not, and then an error of his own; nobody joins after that."""
    sharing, upstream, body, found = await streamed(4, 1)
    found[0]._flows = False
    body.say(b"a")
    await settled()
    body.say(b"b", error=CutShort("broke"))
    await settled()
    found[1].gate.set()
    (other,) = await callers(sharing, upstream, 1)  # begins anew

    assert [one.body for one in found] == [b"ab"] * 4
    assert {str(one.error) for one in found} == {"broke"}
    assert all(isinstance(one.error, CutShort) for one in found)
    assert len({id(one.error) for one in found}) == 4
    assert not any(one.is_whole for one in found)
    assert (body.closed, upstream.asked) == (1, 2)
    await other.leave()
    assert_over(sharing)


@in_loop
async def test_break_is_told_as_often_as_anybody_asks() -> None:
    """A reader may look again: it is the same break, and another error."""
    sharing, upstream, body, _ = await streamed(1)
    shared = await own(sharing, upstream)
    body.say(error=CutShort("broke", headers=((b"a", b"b"),)))
    errors = []
    for _ in range(3):
        with pytest.raises(CutShort) as told:
            await shared.flow(lambda _: None)
        errors.append(told.value)
    await shared.aclose()

    assert len(set(errors)) == 3
    assert [one.headers for one in errors] == [((b"a", b"b"),)] * 3


@in_loop
async def test_who_leaves_hurts_nobody() -> None:
    """Readers may leave at any point; the last one has the body closed, once and at once, and the key is free."""
    sharing, _, body, found = await streamed(4, 2)
    body.say(b"a")
    await settled()
    await found[0].leave()
    await found[2].leave()
    body.say(b"b")
    await settled()
    assert [found[1].body, found[3].body] == [b"ab", b"ab"]
    await found[1].leave()
    assert body.closed == 0
    await found[3].leave()
    assert body.closed == 1
    assert KEY not in sharing._open
    await settled()
    assert_over(sharing)


@in_loop
async def test_closed_body_is_read_no_more() -> None:
    """Who reads a body that he has closed is told that it has no end, even if he was waiting for more."""
    sharing, upstream, body, _ = await streamed(1)
    shared = await own(sharing, upstream)
    task = asyncio.create_task(shared.flow(lambda _: None))
    await settled()
    await shared.aclose()
    await shared.aclose()
    shared.expect_end()
    for reading in (task, shared.flow(lambda _: None), anext(aiter(shared))):
        with pytest.raises(CutShort, match="has been closed"):
            await reading
    assert not body.is_end_next


@in_loop
async def test_ended_stream_is_not_joined() -> None:
    """While a slow reader still reads an answer that has ended, the same call is a new one."""
    sharing, upstream, body, (slow,) = await streamed(1, 0)
    body.say(b"a")
    await settled()
    body.say(b"b", end=True)
    await settled()
    assert (slow.body, body.closed) == (b"a", 1)
    assert held_by(slow) == [b"b"]
    await callers(sharing, upstream, 1)
    slow.gate.set()
    await settled()

    assert (slow.body, slow.is_whole, upstream.asked) == (b"ab", True, 2)


@pytest.mark.parametrize("flows", [True, False])
@in_loop
async def test_only_reader_holds_the_upstream_back(flows: bool) -> None:
    """Of a stream with one reader no more is read than he takes, and a little; nothing of it is lost."""
    sharing, _, body, (slow,) = await streamed(1, 0, flows=flows)
    sent = await say(body, 100)
    assert held(sharing) < AHEAD + 2 * KIB
    assert body.unread + held(sharing) == len(sent)
    slow.gate.set()
    await settled()
    body.say(end=True)
    await settled()

    assert (slow.body, slow.is_whole) == (sent, True)


@in_loop
async def test_joining_a_slow_reader_reads_on() -> None:
    """The upstream that was held back for its only reader is read again when somebody joins him."""
    sharing, upstream, body, _ = await streamed(1, 0)
    sent = await say(body, 20)
    assert body.unread
    (fast,) = await callers(sharing, upstream, 1)

    assert fast.body == sent
    assert not body.unread


@in_loop
async def test_slow_reader_does_not_hold_back_a_fast_one() -> None:
    """A reader who is behind by more than is held is cut off with an error; the fast one gets all, as it comes."""
    sharing, _, body, (fast, slow) = await streamed(2, 1)
    sent = await say(body, 200)
    assert fast.body == sent
    slow.gate.set()
    await settled()

    assert slow.body == sent[:KIB]
    assert isinstance(slow.error, UpstreamError)
    assert slow.error.code == "read_too_slowly"
    assert "65536 bytes of it waited" in str(slow.error)
    assert held(sharing) < 2 * KIB
    body.say(end=True)
    await settled()
    assert fast.is_whole


@pytest.mark.parametrize("size", [10, KIB, 3 * AHEAD])
@pytest.mark.parametrize("flows", [True, False])
@in_loop
async def test_memory_is_bounded(size: int, flows: bool) -> None:
    """However it is read, of whatever chunks it consists, no more is held than the bound and a chunk."""
    sharing, _, body, (fast, slow) = await streamed(2, 1, flows=flows)
    count = 3 * BOUND // (size + CHUNK_BYTES)
    most = 0
    for _ in range(count):
        body.say(b"x" * size)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (flight,) = sharing._flights
        assert flight._stream is not None
        most = max(most, sum(len(chunk) + CHUNK_BYTES for chunk in flight._stream.chunks))

    assert BOUND / 2 < most <= BOUND + size + CHUNK_BYTES
    assert fast.body == b"x" * size * count
    slow.gate.set()
    await settled()
    assert slow.error is not None


@in_loop
async def test_beyond_the_bound_nobody_joins() -> None:
    """A stream whose beginning may be gone takes nobody more, and what all have read is dropped."""
    sharing, upstream, body, (first,) = await streamed(1)
    await say(body, 60)
    (second,) = await callers(sharing, upstream, 1)
    assert (second.joined, held(sharing)) == (True, 60 * KIB)
    await say(body, 10)
    assert held(sharing) == 0
    await callers(sharing, upstream, 1)

    assert upstream.asked == 2
    body.say(end=True)
    await settled()
    assert (first.is_whole, second.is_whole, len(first.body)) == (True, True, 70 * KIB)


@in_loop
async def test_who_is_slow_together_is_not_cut_off() -> None:
    """Where nobody reads faster nobody is cut off: the upstream is held back at the bound, and read on with them."""
    sharing, _, body, (one, other) = await streamed(2, 0, 1)
    sent = await say(body, 200)
    assert BOUND - 4 * KIB < held(sharing) < BOUND + 2 * KIB
    assert body.unread
    one.gate.set()
    other.gate.set()
    await settled()
    body.say(end=True)
    await settled()

    assert [(caller.body == sent, caller.error) for caller in (one, other)] == [(True, None)] * 2
    assert_over(sharing)


@in_loop
async def test_slow_readers_are_held_for_no_longer_than_one_is_fast() -> None:
    """When one of those who held the upstream back goes on, the others are cut off."""
    _, _, body, (one, other) = await streamed(2, 0, 1)
    sent = await say(body, 200)
    one.gate.set()
    await settled()
    body.say(b"x")
    await settled()
    other.gate.set()
    await settled()

    assert one.body == sent + b"x"
    assert isinstance(other.error, UpstreamError)


@in_loop
async def test_nobody_is_cut_off_for_who_has_left() -> None:
    """When the one who read on leaves before the next chunk comes, those who are as slow as each other stay."""
    sharing, _, body, (fast, *slow) = await streamed(3, 0, 1, 2)
    count = 0
    while held(sharing) + count * CHUNK_BYTES <= BOUND:
        body.say(b"x" * KIB)
        count += 1
        await settled()
    fast.gate.set()
    await settled()
    await fast.leave()
    body.say(b"y")
    await settled()
    for one in slow:
        one.gate.set()
    await settled()

    assert fast.body == b"x" * KIB * count
    assert [one.body for one in slow] == [fast.body + b"y"] * 2


@in_loop
async def test_leaving_reader_may_make_room() -> None:
    """When the slowest of those who hold the upstream back leaves, it is read on for the others."""
    sharing, _, body, (slowest, *others) = await streamed(3, 0, 1, 2)
    await say(body, 1)
    for one in others:
        one.gate.set()
    sent = await say(body, 30)
    assert {one.body == sent for one in others} == {False}
    for one in others:
        assert one.body[KIB:] == sent
        one.gate.clear()
    await say(body, 100)
    unread = body.unread
    assert unread
    await slowest.leave()
    await settled()

    assert body.unread == 0
    assert unread < held(sharing) < BOUND + unread


@in_loop
async def test_iteration_that_is_too_slow_ends_in_an_error() -> None:
    """Who asks for the next piece too late gets an error of the upstream hop, as from any stream that broke."""
    sharing, upstream, body, _ = await streamed(1)
    shared = await own(sharing, upstream)
    assert isinstance(shared, SharedBody)
    await say(body, 100)

    with pytest.raises(GatewayError) as told:
        await anext(aiter(shared))
    assert told.value.status == 502
    await shared.aclose()
