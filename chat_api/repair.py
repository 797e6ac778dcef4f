"""Which bytes of an upstream's event stream go on to the client, and how the stream ends. Pure.

Whole events go on as they are, the moment they are whole; a piece of one waits for the rest, so that
what breaks off is never half an event. The end is repaired where only its form is wrong, and is an
error wherever the answer itself is not complete.
"""

import re

from chat_api.compat import strict_events
from chat_api.credentials import without_key
from chat_api.errors import UpstreamError
from chat_api.operations import CHAT
from chat_api.refusals import read_refusal_in_200
from chat_api.sse import (
    DONE,
    MAX_EVENT_BYTES,
    NO_USAGE,
    Event,
    EventDecoder,
    Outline,
    read_outline,
    split_events,
    tells_usage_only,
)
from chat_api.types import Secret

TERMINAL = frozenset(
    {"response.completed", "response.failed", "response.incomplete", "response.cancelled", "error"}
)  # the events of the Responses API after which nothing comes
END = b"data: [DONE]\n\n"
_NO_USAGE_AT_END = NO_USAGE + b"}\n\n"

_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_TOLD = re.compile(rb"response\.(?:completed|failed|incomplete|cancelled)")
_MARKS = (b"\n\n", b"\n\r\n", b"\r\r")  # what ends with them is whole


class EventRepair:
    """Follows one event stream.

    Args:
        operation: what was asked for; it decides what a complete answer is.
        choices: how many answers a chat was asked for.
        compat: whether chunks go on without what only Azure puts into them.
        hides_usage: whether they go on without what a chat took, for which its caller did not ask.
        key: what was asked with; no error repeats it.
    """

    def __init__(
        self,
        operation: str,
        choices: int = 1,
        *,
        compat: bool = False,
        hides_usage: bool = False,
        key: Secret | None = None,
    ) -> None:
        self._key = key
        self._is_chat = operation in CHAT
        self._is_responses = operation.split("/")[0] == "responses"
        self._choices = choices
        self._compat = strict_events(operation) if compat and self._is_chat else None
        self._hides_usage = hides_usage and self._is_chat
        self._held = bytearray()
        self._finished: set[int] = set()
        self._at_start = True
        self._is_under_way = False  # whole events of no interest go on without another look
        self._told = False  # a Responses stream has said how it ends
        self.done = False  # nothing that still comes belongs to the answer
        self.error: UpstreamError | None = None  # why the answer is not complete

    @property
    def is_over(self) -> bool:
        """Whether nothing more goes on: the answer is complete, or cannot be."""
        return self.done or self.error is not None

    @property
    def ended(self) -> bool:
        """Whether the stream itself has said that it is at its end."""
        return self.error is None and (self.done or self._told)

    @property
    def complete(self) -> bool:
        """Whether the answer is there to its end, though the stream may not say so."""
        return self.ended or (self.error is None and self._is_chat and len(self._finished) >= self._choices)

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that go on, now that `chunk` has come: whole events, b"" if it completes none.

        Raises:
            UpstreamError: an event is larger than any that makes sense.
        """
        if self._held or not chunk.endswith(b"\n\n"):
            chunk = self._whole(chunk)
        elif self._is_under_way:
            if self._hides_usage:
                if not chunk.endswith(_NO_USAGE_AT_END) or chunk.find(b"\n", 0, -2) >= 0:
                    return self._followed(chunk)
                chunk = chunk[: -len(_NO_USAGE_AT_END)] + b"}\n\n"  # one event, that tells none
            if not self._is_of_interest(chunk):
                return chunk  # as nearly all are
        return self._followed(chunk) if chunk else b""

    def finish(self) -> bytes:
        """The upstream has ended the body: the bytes that its end still lacks. `error` tells if it is no end."""
        tail = bytes(self._held)
        self._held.clear()
        whole = _is_whole_event(tail)
        repaired = self._followed(tail.rstrip(b"\r\n") + b"\n\n") if whole else b""
        lost = not whole and b"data" in tail
        if self._is_chat and self.complete and not self.done and not lost:
            self.done = True
            repaired += END  # every choice has said why it ends
        if self.error is None and not (self.done or self._told) and (lost or not self._ends_by_itself):
            self.error = UpstreamError("the upstream ended its answer before its end", code="answer_cut_short")
        return repaired

    @property
    def _ends_by_itself(self) -> bool:
        """Whether the end of the body is end enough: nothing is known of what this kind of stream ends with."""
        return not (self._is_chat or self._is_responses)

    def _whole(self, chunk: bytes) -> bytes:
        """The whole events in what was held and `chunk`; the rest is held."""
        searched = max(0, len(self._held) - 3)
        self._held += chunk
        end = max((at + len(mark) for mark in _MARKS if (at := self._held.rfind(mark, searched)) >= 0), default=0)
        if len(self._held) - end > MAX_EVENT_BYTES:
            raise UpstreamError(f"an event of the upstream's stream is larger than {MAX_EVENT_BYTES} bytes")
        whole = bytes(self._held[:end])
        del self._held[:end]
        return whole

    def _followed(self, whole: bytes) -> bytes:
        if self.is_over:
            return b""
        if self._at_start:
            self._at_start = False
            whole = whole.removeprefix(b"\xef\xbb\xbf")
            self._is_under_way = self._compat is None
        if self._hides_usage:
            whole = whole.replace(NO_USAGE, b"")
        if self._compat is None and not (
            self._is_of_interest(whole) or (self._hides_usage and whole.find(b'"usage"') >= 0)
        ):
            return whole
        passed = []
        for raw in split_events(whole):
            event = _event(raw)
            if event is not None and not self._read(event):
                if self.error is not None:
                    break
                raw = END if event.data.strip() == DONE != event.data else raw  # some clients read no spaces after it
            if self._hides_usage and event is not None and tells_usage_only(event.data):
                continue
            passed.append(self._compat(raw, event) if self._compat and event else raw)
            if self.done:
                break
        self._is_under_way = self._is_under_way and not self.is_over
        return b"".join(passed)

    def _is_of_interest(self, whole: bytes) -> bool:
        """Whether it may have to be read: a look at the bytes tells most chunks apart.

        With `in` Python would first take what is looked for as a number, and make the message of an error of that.
        """
        if whole.find(b"[DONE]") >= 0 or whole.find(b"error") >= 0:
            return True
        return (_TOLD if self._is_responses else _FINISHED).search(whole) is not None

    def _read(self, event: Event) -> bool:
        """Take note of an event; False if it ends the stream."""
        if event.data.strip() == DONE:
            self.done = True
            return False
        chunk = read_outline(event.data)
        if self._is_responses and not (chunk is not None and chunk.is_error and chunk.type is None):
            # Not the last event for certain: `response.failed` may come before the one that says why.
            self._told = self._told or event.name in TERMINAL or (chunk is not None and chunk.type in TERMINAL)
            return True
        if event.name == "error" or (chunk is not None and chunk.is_error):
            self.error = _refusal(event, self._key)
            return False
        if chunk is not None:  # what cannot be read here, the client may
            self._note_ends(chunk)
        return True

    def _note_ends(self, chunk: Outline) -> None:
        for choice in chunk.choices or ():
            if choice.finish_reason:
                self._finished.add(choice.index or 0)


def _event(raw: bytes) -> Event | None:
    """The event in one event's bytes, its line ends there or not; None if it is a comment."""
    decoder = EventDecoder()
    events = [*decoder.feed(raw), *decoder.flush()]
    return events[0] if events else None


def _is_whole_event(tail: bytes) -> bool:
    """Whether a stream's last bytes are an event that lacks only its line ends, not a piece of one."""
    events = EventDecoder()
    found = [*events.feed(tail), *events.flush()]
    return bool(found) and (found[-1].data.strip() == DONE or read_outline(found[-1].data) is not None)


def _refusal(event: Event, key: Secret | None) -> UpstreamError:
    refusal = read_refusal_in_200((), without_key(event.data, key.reveal().encode()) if key else event.data)
    return refusal or UpstreamError("the upstream sent an event that is no chunk of an answer")
