"""The load of a soak run: many kinds of requests in a seeded mix, each answer checked, over lasting connections."""

import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.exchanges import Exchange, prompted, prompted_stream, refused, streamed, whole
from benchmarks.load import ClosedLoop, Connection

CONNECTIONS = 48


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of request, and how many of a hundred are of it."""

    percent: int
    exchange: Exchange


def mix() -> dict[str, Part]:
    """The kinds of requests by their names."""
    return {
        "relayed JSON, 1 kB": Part(60, whole(1)),
        "relayed JSON, 300 kB": Part(3, whole(300)),
        "/v1/gpt/chat, JSON": Part(20, prompted(1)),
        "relayed stream": Part(6, streamed(2, 20)),
        "/v1/gpt/chat, stream": Part(4, prompted_stream(2, 20)),
        "refused, 404": Part(3, refused("/nowhere", b"{}", 404, "unknown_path")),
        "refused, 400, relay": Part(2, refused("/v1/chat/completions", b'{"messages": ', 400, "invalid_json")),
        "refused, 400, prompt": Part(2, refused("/v1/gpt/chat", b'{"prompt": 1}', 400, "invalid_value")),
    }


class MixedLoop(ClosedLoop):
    """A fixed number of connections, each sending its next request, of whatever kind, when it has its answer.

    Args:
        parts: the kinds of requests.
        rng: decides which is next.
    """

    def __init__(self, parts: Mapping[str, Part], rng: random.Random) -> None:
        first = next(iter(parts.values())).exchange
        super().__init__(first.request, first.new_check)
        self._parts = parts
        self._names = tuple(parts)
        self._weights = [part.percent for part in parts.values()]
        self._rng = rng
        self.sent: Counter[str] = Counter()

    def _send_next(self, connection: Connection) -> None:
        if self._unsent == 0:
            return
        self._unsent -= 1
        (name,) = self._rng.choices(self._names, self._weights)
        exchange = self._parts[name].exchange
        self.sent[name] += 1
        connection.send(exchange.request, exchange.new_check(), exchange.status)


class Visitors:
    """Clients that come, ask once, and keep their connection until so many others have come after them.

    What a connection leaves behind may outlast the garbage collector's looks at what is young: the more so the longer
    it was open, and the more of them there were at a time.

    Args:
        port: the gateway's, on the loopback address.
        staying: how many connections are open at a time.
    """

    def __init__(self, port: int, staying: int) -> None:
        self._port = port
        self._staying = staying
        self._exchange = whole(1)
        self._open: deque[ClosedLoop] = deque()
        self.came = 0

    async def run(self, visitors: int) -> None:
        """Let so many come, one by one; who has stayed for long leaves.

        Raises:
            Fault: an answer was not right.
        """
        for _ in range(visitors):
            visitor = ClosedLoop(self._exchange.request, self._exchange.new_check)
            await visitor.open(self._port, 1)
            self._open.append(visitor)
            self.came += 1
            await visitor.run(1)
            if len(self._open) > self._staying:
                self._open.popleft().close()

    def close(self) -> None:
        """Close all connections."""
        for visitor in self._open:
            visitor.close()
