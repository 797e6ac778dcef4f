"""How answers break, or are merely unusual: the faults that begin with a healthy answer, most of them of streams."""

import gzip
import re
import zlib
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from chat_api.emulator import replies
from chat_api.emulator.answers import SAFE, Answer, encode
from chat_api.emulator.error_bodies import EVENT_ERROR, VIOLENT
from chat_api.emulator.exchange import Exchange

SLOW_SECONDS = 0.1  # between the events of `fault-slow` and `fault-endless`
_COMMENT = b": a comment\r\n"
_CODED = {"content-encoding": "gzip"}
_PIECE = re.compile(rb"[\n\x80-\xff]|[^\n\x80-\xff]{1,5}")  # line ends and the bytes of long characters are alone
_FIRST_TEXT = {"completions": 1, "responses": 4}  # the place of the first event that carries text

Play = Callable[[Exchange], Awaitable[None]]


def of_answer(play: Play) -> Play:
    """The fault of an answer: a request that has none gets the refusal."""

    @wraps(play)
    async def checked(exchange: Exchange) -> None:
        if error := exchange.refusal():
            await exchange.respond(400, encode(error))
        else:
            await play(exchange)

    return checked


def _of_stream(play: Play) -> Play:
    """The fault of a stream: a call that wants none is answered."""

    @of_answer
    @wraps(play)
    async def checked(exchange: Exchange) -> None:
        await (play(exchange) if exchange.streams else exchange.ordinary())

    return checked


async def silent(exchange: Exchange) -> None:
    """Send the head, then nothing."""
    if exchange.streams:
        await exchange.start()
    else:
        await exchange.respond(200, b"", length=1000)
    await exchange.gone()


async def _half(exchange: Exchange, *, within: bool = False) -> None:
    """Send half of the answer, ready for whatever comes next; with half of an event more, if it is to end in one."""
    if exchange.streams:
        events = exchange.events()
        middle = len(events) // 2
        await exchange.start()
        for event in events[:middle]:
            await exchange.write(event)
        if within:
            await exchange.write(events[middle][: len(events[middle]) // 2])
    else:
        body, content_type = exchange.whole()
        await exchange.respond(200, body[: len(body) // 2], content_type=content_type, length=len(body))


@of_answer
async def cut(exchange: Exchange) -> None:
    """Half of the answer, then the connection closes."""
    await _half(exchange)
    await exchange.cut()


@of_answer
async def truncated(exchange: Exchange) -> None:
    """The same, in the middle of an event."""
    await _half(exchange, within=True)
    await exchange.cut()


@of_answer
async def stall(exchange: Exchange) -> None:
    """Half of the answer, then nothing."""
    await _half(exchange)
    await exchange.gone()


@_of_stream
async def no_done(exchange: Exchange) -> None:
    """Half of the stream, and its end in good order."""
    await _half(exchange)
    await exchange.finish()


@_of_stream
async def no_marker(exchange: Exchange) -> None:
    """All events, and no mark of the end."""
    await exchange.play(exchange.events())


@_of_stream
async def spaced_done(exchange: Exchange) -> None:
    """A space after the mark of the end."""
    await exchange.play([*exchange.events(), exchange.end_mark.replace(b"[DONE]", b"[DONE] ")])


@_of_stream
async def crlf(exchange: Exchange) -> None:
    """CRLF for every LF; comments before, between and within the events."""
    events = [event.replace(b"\n", b"\r\n") for event in (*exchange.events(), exchange.end_mark) if event]
    await exchange.play([_COMMENT + b"\r\n", *(_COMMENT + event for event in events)])


@_of_stream
async def split(exchange: Exchange) -> None:
    """Pieces of a few bytes, each in a part of its own."""
    await exchange.play(_PIECE.findall(b"".join(exchange.events()) + exchange.end_mark))


@of_answer
async def gzipped(exchange: Exchange) -> None:
    """The answer under a coding that was not asked for; a stream's events can be opened as they come."""
    if not exchange.streams:
        body, content_type = exchange.whole()
        await exchange.respond(200, gzip.compress(body, mtime=0), content_type=content_type, headers=_CODED)
        return
    coder = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    events = (*exchange.events(), exchange.end_mark)
    parts = [coder.compress(event) + coder.flush(zlib.Z_SYNC_FLUSH) for event in events]
    await exchange.play([*parts, coder.flush()], _CODED)


@of_answer
async def slow(exchange: Exchange) -> None:
    """A second before the answer; a pause after every event."""
    if not exchange.streams:
        if not await exchange.gone(1.0):
            await exchange.ordinary()
        return
    await exchange.start()
    for event in [*exchange.events(), exchange.end_mark]:
        await exchange.write(event)
        if await exchange.gone(SLOW_SECONDS):
            return
    await exchange.finish()


@_of_stream
async def endless(exchange: Exchange) -> None:
    """The first text again and again."""
    events = exchange.events()
    first = _FIRST_TEXT.get(exchange.operation, 2)
    await exchange.start()
    for event in events[:first]:
        await exchange.write(event)
    while not await exchange.gone(SLOW_SECONDS):
        await exchange.write(events[first])


@_of_stream
async def no_last_newline(exchange: Exchange) -> None:
    """Everything but the last event's line ends."""
    await exchange.play([(b"".join(exchange.events()) + exchange.end_mark).rstrip(b"\n")])


@of_answer
async def error_event(exchange: Exchange) -> None:
    """An error in the place of an answer; a chat's prompt filter has passed by then."""
    if not exchange.streams:
        await exchange.respond(200, encode(EVENT_ERROR))
        return
    before = [] if exchange.operation == "responses" else exchange.events()[:1]
    await exchange.play([*before, *exchange.error_events(EVENT_ERROR)])


async def error_only(exchange: Exchange) -> None:
    """An error, and nothing before it."""
    if exchange.streams:
        await exchange.play([replies.event(EVENT_ERROR)])
    else:
        await exchange.respond(200, encode(EVENT_ERROR))


@of_answer
async def late_error_event(exchange: Exchange) -> None:
    """An error when half of the answer is there."""
    if not exchange.streams:
        await exchange.respond(200, encode(EVENT_ERROR))
        return
    await _half(exchange)
    for event in exchange.error_events(EVENT_ERROR, len(exchange.events()) // 2):
        await exchange.write(event)
    await exchange.finish()


@of_answer
async def async_filter(exchange: Exchange) -> None:
    """What the filter finds comes in chunks of its own, after the text and after the finish."""
    if not exchange.streams or exchange.operation != replies.CHAT:
        await exchange.ordinary()
        return
    chunks = list(Answer(exchange.body, exchange.deployment).chunks())
    noted: list[dict[str, Any]] = []
    for place, chunk in enumerate(chunks):
        noted.append(chunk)
        if any(choice["delta"].get("content") or choice["finish_reason"] for choice in chunk["choices"]):
            noted.append(_annotation(chunk["choices"][0]["index"], place))
    await exchange.play([*map(replies.event, noted), exchange.end_mark])


def _annotation(choice: int, offset: int) -> dict[str, Any]:
    found = {
        "content_filter_offsets": {"check_offset": offset, "end_offset": offset + 1, "start_offset": offset},
        "content_filter_results": SAFE,
        "finish_reason": None,
        "index": choice,
    }
    return {"choices": [found], "created": 0, "id": "", "model": "", "object": "", "usage": None}


@of_answer
async def filtered_answer(exchange: Exchange) -> None:
    """The content filter stops a chat's answer: 200, an empty text and its finish reason."""
    if exchange.operation != replies.CHAT:
        await exchange.ordinary()
        return
    answer = Answer(exchange.body, exchange.deployment)
    stopped = {"finish_reason": "content_filter", "content_filter_results": VIOLENT}
    if not exchange.streams:
        whole = answer.whole()
        whole["choices"][0] |= stopped
        whole["choices"][0]["message"]["content"] = ""
        await exchange.respond(200, encode(whole))
        return
    chunks = list(answer.chunks())
    last = max(number for number, chunk in enumerate(chunks) if chunk["choices"])  # the usage comes after it
    chunks[last]["choices"][0] |= stopped
    await exchange.play([*(replies.event(chunk) for chunk in (*chunks[:2], *chunks[last:])), exchange.end_mark])
