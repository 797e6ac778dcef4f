"""What makes an answer right: every byte of a JSON body, every chunk of a stream in its order, a proper end. Pure."""

import json
from collections.abc import Sequence
from typing import Protocol

from benchmarks.answers import DONE, number_of

_SHOWN_BYTES = 200


class Fault(Exception):
    """What came is not what should have come; the message says what, and where."""


class Check(Protocol):
    """Looks at one answer's body as it comes."""

    def feed(self, data: bytes) -> int:
        """Take a piece of the body; how many chunks it completed.

        Raises:
            Fault: it is not what was due.
        """
        ...

    def end(self) -> None:
        """The body has ended properly.

        Raises:
            Fault: something is missing.
        """
        ...


class BodyCheck:
    """A body that equals the expected one byte for byte."""

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self._offset = 0

    def feed(self, data: bytes) -> int:
        """Take a piece of the body."""
        if not self._expected.startswith(data, self._offset):
            end = self._offset + len(data)
            at = next(
                (i for i, byte in enumerate(data, self._offset) if self._expected[i : i + 1] != bytes([byte])), end
            )
            raise Fault(f"the body differs from byte {at} on: {data[at - self._offset :][:_SHOWN_BYTES]!r}")
        self._offset += len(data)
        return 0

    def end(self) -> None:
        """The body has ended."""
        if self._offset != len(self._expected):
            raise Fault(f"the body ended after {self._offset} of {len(self._expected)} bytes")


class RefusalCheck:
    """The body of an answer that refuses.

    Args:
        code: the code of its error.
    """

    def __init__(self, code: str) -> None:
        self._code = code
        self._body = b""

    def feed(self, data: bytes) -> int:
        """Take a piece of the body."""
        self._body += data
        return 0

    def end(self) -> None:
        """The body has ended."""
        try:
            code = json.loads(self._body)["error"]["code"]
        except (ValueError, LookupError, TypeError):
            code = None
        if code != self._code:
            raise Fault(f"no error with the code {self._code}: {self._body[:_SHOWN_BYTES]!r}")


class LearnedBody:
    """The body of `/v1/gpt/chat`: the first is parsed and checked, the others equal it byte for byte.

    Args:
        completion: the upstream's chat completion, which the answer has to hold unchanged.
    """

    def __init__(self, completion: bytes) -> None:
        self._completion = json.loads(completion)
        self._learned: bytes | None = None

    def __call__(self) -> Check:
        """A check for the next answer."""
        return BodyCheck(self._learned) if self._learned is not None else _FirstBody(self)

    def learn(self, body: bytes) -> None:
        """Check an answer's body and expect it from now on.

        Raises:
            Fault: it is no answer to a prompt, or does not hold the completion.
        """
        if self._learned is not None and body != self._learned:
            raise Fault("two answers to the same prompt differ")
        try:
            answer = json.loads(body)
        except ValueError:
            raise Fault(f"the body is no JSON: {body[:_SHOWN_BYTES]!r}") from None
        text = self._completion["choices"][0]["message"]["content"]
        if answer != {**self._completion, "success": 1, "text": text}:
            raise Fault(f"the answer does not hold the completion and its text: {body[:_SHOWN_BYTES]!r}")
        self._learned = body


class _FirstBody:
    def __init__(self, learner: LearnedBody) -> None:
        self._learner = learner
        self._body = b""

    def feed(self, data: bytes) -> int:
        self._body += data
        return 0

    def end(self) -> None:
        self._learner.learn(self._body)


class StreamCheck:
    """An event stream: every chunk, each once, in order, with its finish and one `[DONE]` at the end.

    Comments may stand between the events, and JSON may be spaced otherwise; nothing else may differ.

    Args:
        events: the events that are due.
    """

    def __init__(self, events: Sequence[bytes]) -> None:
        self._events = events
        self._pending = b""
        self.seen = 0  # chunks that came, all of them right

    def feed(self, data: bytes) -> int:
        """Take a piece of the stream; how many chunks it completed."""
        data = self._pending + data if self._pending else data
        before, start = self.seen, 0
        while (blank := data.find(b"\n\n", start)) >= 0:
            event = data[start : blank + 2]
            if self.seen < len(self._events) and event == self._events[self.seen]:
                self.seen += 1
            elif not event.startswith(b":"):
                self._judge(event)
            start = blank + 2
        self._pending = data[start:]
        return self.seen - before

    def end(self) -> None:
        """The stream has ended."""
        if self._pending:
            raise Fault(f"the stream ended within an event: {self._pending[:_SHOWN_BYTES]!r}")
        if self.seen < len(self._events):
            missing = _words(self._events[self.seen], self.seen)
            raise Fault(f"the stream ended where {missing} was due")

    def _judge(self, event: bytes) -> None:
        if self.seen == len(self._events):
            raise Fault(f"after the end came {_words(event, None)}")
        due = self._events[self.seen]
        if event == DONE or due == DONE or _content(event) != _content(due):
            raise Fault(f"{_words(event, None)} came where {_words(due, self.seen)} was due")
        self.seen += 1


def _content(event: bytes) -> object:
    try:
        return json.loads(event.removeprefix(b"data:"))
    except ValueError:
        return event


def _words(event: bytes, place: int | None) -> str:
    """What an event is, in words; `place` is its number in the stream, if that is known."""
    if event == DONE:
        return "[DONE]"
    content = _content(event)
    number = number_of(content)
    if number is not None:
        return f"chunk {number}"
    if b'"finish_reason":"stop"' in event:
        return "the chunk with the finish reason"
    return f"chunk {place}" if place is not None else f"{event[:_SHOWN_BYTES]!r}"
