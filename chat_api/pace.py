"""When the events of a stream go out that is not to come in bursts. Pure.

Nothing here makes a slow stream slower: an event waits only for those that came before it.
"""

import re
from collections.abc import Iterator, Mapping

from chat_api.counting import Rate
from chat_api.sse import split_events

ANY_ROUTE = "*"  # among the rates: the one of all routes that have none of their own
# Lateness that is made up for; or an interval, where that is more. What a client does not take for longer than that,
# or a process that stood still, is not followed by a burst.
MAX_BEHIND_SECONDS = 0.1
# What is there so soon after the last event went out was waiting behind it, and did not come just then.
_AT_ONCE_SECONDS = 0.001

_DATA = re.compile(rb"(?:^|[\r\n])data[:\r\n]")
_DONE = re.compile(rb"(?:^|[\r\n])data: *\[DONE\] *[\r\n]")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')  # within a JSON string its quotes would be escaped


def interval_of(rates: Mapping[str, Rate], *route: str) -> float:
    """Seconds between two events of a stream on a route, which may come in pieces; 0 if it is not paced."""
    if not rates:
        return 0.0
    rate = rates.get("".join(route)) or rates.get(ANY_ROUTE)
    return rate.seconds / rate.limit if rate is not None else 0.0


class Pace:
    """The schedule of one stream: each event has its time, an interval after the last one's or when it comes.

    Times follow from times and not from when somebody woke up, so that being late does not add up.

    Args:
        interval: seconds.
    """

    __slots__ = ("_behind", "_due", "_interval", "_went")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._behind = max(interval, MAX_BEHIND_SECONDS)
        self._due = self._went = float("-inf")  # when the last event was due, and when it went out

    def wait(self, now: float) -> float:
        """Seconds until the next event goes out; to be asked once it is there and all before it has gone out."""
        waited = now - self._went < _AT_ONCE_SECONDS
        self._due = max(self._due + self._interval, now - self._behind if waited else now)
        return max(0.0, self._due - now)

    def went(self, now: float) -> None:
        """The event has gone out, which may have taken its time."""
        self._went = now


def turns(whole: bytes) -> Iterator[tuple[bytes, bool]]:
    """What goes out at one time of whole events, in order, and whether it has to wait for its turn.

    An event that takes none goes with the one before it. Together they are all the bytes.
    """
    held: list[bytes] = []
    takes = False
    for event in split_events(whole):
        if takes_turn(event):
            if held:
                yield b"".join(held), takes
            held, takes = [event], True
        else:
            held.append(event)
    if held:
        yield b"".join(held), takes


def takes_turn(event: bytes) -> bool:
    """Whether an event, in its bytes, is one that a reader sees: no comment, no `[DONE]`, no chunk without choices."""
    return _DATA.search(event) is not None and not is_empty(event) and _DONE.search(event) is None


def is_empty(data: bytes) -> bool:
    """Whether an event's data is a chat chunk without choices, such as what Azure's filter says, or the usage."""
    return _NO_CHOICES.search(data) is not None
