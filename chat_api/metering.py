"""Calls that are counted: admitted within their limits, and settled with the tokens that they really took."""

import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from msgspec import Struct

from chat_api.counting import Claim, Grant, Price, Store, Usage
from chat_api.errors import GatewayError, UpstreamError
from chat_api.headers import media_type
from chat_api.ledger import Ledger
from chat_api.limited import RATE_LIMITS, refusal, told_of, too_large
from chat_api.plans import Plan, Planner
from chat_api.tokens import Expectations, goes_on, most_completion_tokens, prompt_tokens, usage_at_end, usage_in
from chat_api.types import ByteStream, Call, Deployment, Reply, Sink

TAIL_BYTES = 16 * 1024  # of an answer that is not held, in which it says what it took
HELD_CHUNKS = 16  # that are looked at together


class Count(Struct):
    """What a call has taken so far, and where that is counted."""

    call: Call
    model: str
    plan: Plan | None
    prompt: int = 0  # about how many tokens, by its size
    reserved_prompt: int = 0  # how many it may be
    tokens: int = 0  # that it claimed
    cost: int = 0
    claims: tuple[Claim, ...] = ()
    grant: Grant = Grant()

    @property
    def claimed(self) -> Usage:
        """What counts where an answer says nothing: one that is still to be made, say, in the background."""
        prompt = min(self.reserved_prompt, self.tokens)
        return Usage(prompt, self.tokens - prompt)


class Meter:
    """Counts the calls of a gateway.

    Args:
        planner: what is counted for whom.
        store: counts it.
        ledger: remembers what was used, if anybody wants to know.
        prices: of a million tokens, by model or deployment.
        wall: the time, in seconds since 1970.
    """

    def __init__(
        self,
        planner: Planner,
        store: Store,
        ledger: Ledger | None = None,
        prices: Mapping[str, Price] | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._planner = planner
        self.store = store
        self._ledger = ledger
        self._prices = {name.lower(): price for name, price in (prices or {}).items()}
        self.expectations = Expectations()
        self._wall = wall
        self._labels: dict[Deployment, str] = {}
        self.refused = 0  # calls, since the start
        # Whether anybody wants to know what answers took.
        self.reads_usage = ledger is not None

    async def carry(self, call: Call, model: str, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """The reply to a call, once it is admitted; what it took is counted when it has ended, however it does.

        Args:
            call: what is asked.
            model: what the model is called where it is counted; "" if there is none.
            ask: asks the upstream.

        Raises:
            RateLimited: it is beyond a limit.
            StoreDown: nobody can say.
            GatewayError: the upstream gave no answer.
        """
        count = self._begin(call, model)
        if count.plan is not None:
            granted = self.store.admit(count.claims)
            count.grant = granted if isinstance(granted, Grant) else await granted
            if count.grant.refused is not None:
                self.refused += 1
                raise refusal(count.plan, count.grant, count.tokens, self._wall())
        try:
            reply = await ask()
        except BaseException as error:
            self.end(count, None, is_error=isinstance(error, GatewayError))
            if isinstance(error, GatewayError) and count.plan:
                error.headers += tuple(told_of(count.plan, count.grant))
            raise
        return self._counted(reply, count)

    def _begin(self, call: Call, model: str) -> Count:
        """What a call claims."""
        assert call.caller is not None  # noqa: S101 - who calls is known where calls are counted
        plan = self._planner.plan(call.caller, route_of(call) if self._planner.tells_routes else "", model)
        count = Count(call, model, plan)
        if plan is None:
            return count
        if plan.counts_tokens:
            count.prompt = prompt_tokens(call.body)
            stated = most_completion_tokens(call.body)
            most = plan.most_tokens
            completion = self.expectations.of_answer(model) * _choices(call) if stated is None else stated
            count.reserved_prompt = self.expectations.of_prompt(model, count.prompt)
            count.tokens = count.reserved_prompt + completion
            if most is not None and count.tokens > most:
                if count.prompt + (stated or 0) > most:
                    raise too_large(count.prompt, stated, most)
                count.tokens = most  # it gets through when there is nobody else
            if plan.budget:
                count.cost = self._cost(model, "", Usage(count.reserved_prompt, completion))
        count.claims = plan.claims(count.tokens, count.cost)
        return count

    def _counted(self, reply: Reply, count: Count) -> Reply:
        """The reply, which is settled now or when its body has ended."""
        body: bytes | ByteStream = reply.body
        if reply.status >= 400:
            self.end(count, None, is_error=True)
        elif isinstance(body, bytes):
            usage = usage_in(body) if count.call.is_metered else None
            # What is only claimed teaches nothing: it would be expected of the next, and a little more.
            self.end(count, usage or (count.claimed if count.call.is_metered else None), is_whole=usage is not None)
        else:
            body = MeteredBody(body, self, count, is_stream=media_type(reply.headers) == "text/event-stream")
        headers, plan = reply.headers, count.plan
        if plan is not None and (plan.requests or plan.tokens or plan.of_model):
            headers = [pair for pair in headers if pair[0] not in RATE_LIMITS]
            headers += told_of(plan, count.grant)
        if headers is reply.headers and body is reply.body:
            return reply
        return Reply(reply.status, headers, body, reply.deployment, reply.adaptations)

    def end(self, count: Count, usage: Usage | None, *, is_error: bool = False, is_whole: bool = True) -> None:
        """A call has ended.

        Args:
            count: what it claimed.
            usage: what it took; None if that is nothing.
            is_error: whether it failed.
            is_whole: whether its answer came to its end.
        """
        call, plan = count.call, count.plan
        last = call.trail[-1] if call.trail else None
        deployment = last.deployment if last else None
        took = cost = 0
        if usage is not None:
            took = usage.prompt + usage.completion
            if self._prices and last is not None:  # what stood in for a model has its own price
                cost = self._cost(last.fallback or count.model, last.deployment.name, usage)
        if plan is not None:
            changes = plan.changes(took - count.tokens, cost - count.cost)
            self.store.settle(count.claims, count.grant, changes)
        if usage is not None and is_whole and plan is not None and plan.counts_tokens:
            self.expectations.note(count.model, count.prompt, usage, _choices(call))
        if self._ledger is not None and call.caller is not None:
            label = self._label(deployment) if deployment else "-"
            self._ledger.note(call.caller.name, count.model, label, usage, is_error=is_error, cost=cost)

    def _cost(self, model: str, deployment: str, usage: Usage) -> int:
        price = self._prices.get(model.lower()) or self._prices.get(deployment.lower())
        return price.cost(usage) if price else 0

    def _label(self, deployment: Deployment) -> str:
        label = self._labels.get(deployment)
        if label is None:
            if len(self._labels) > 1000:  # callers may make up names
                self._labels.clear()
            label = self._labels[deployment] = deployment.label
        return label


class MeteredBody:
    """A body as it arrives (`ByteStream`), whose call is settled when it has ended, or when nobody reads on.

    What it took it says at its end. Where that does not come, as many tokens are taken for granted as
    events have gone on: Azure puts one into each.
    """

    __slots__ = ("_body", "_count", "_events", "_held", "_is_stream", "_is_whole", "_meter", "_size", "_tail")

    def __init__(self, body: ByteStream, meter: Meter, count: Count, *, is_stream: bool) -> None:
        self._body = body
        self._meter: Meter | None = meter
        self._count = count
        self._is_stream = is_stream
        self._is_whole = False
        self._held: list[bytes] = []  # chunks that nobody has looked at yet
        self._tail: deque[bytes] = deque()
        self._size = 0  # of the tail
        self._events = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                self._held.append(chunk)
                if len(self._held) >= HELD_CHUNKS:
                    self._look()
                yield chunk
        except UpstreamError:
            self._end(is_error=True)
            raise
        self._is_whole = True

    async def flow(self, sink: Sink) -> Awaitable[object] | None:
        """Give `sink` each chunk the moment it is there."""
        held = self._held

        def looked_at(chunk: bytes) -> Awaitable[object] | None:
            held.append(chunk)
            if len(held) >= HELD_CHUNKS:
                self._look()
            return sink(chunk)

        try:
            waiting = await self._body.flow(looked_at)
        except UpstreamError:
            self._end(is_error=True)
            raise
        self._is_whole = waiting is None
        return waiting

    def _look(self) -> None:
        """Keep no more of what has come than its end."""
        come = b"".join(self._held)
        self._held.clear()
        self._tail.append(come)
        self._size += len(come)
        while self._size - len(self._tail[0]) >= TAIL_BYTES:
            self._size -= len(self._tail.popleft())
        if self._is_stream:  # else its tokens cannot be told from its bytes
            self._events += come.count(b"data:")

    def expect_end(self) -> None:
        """Only the end of the body is still to come."""
        self._is_whole = True
        self._body.expect_end()

    def _end(self, *, is_error: bool = False) -> None:
        meter, self._meter = self._meter, None
        if meter is None:
            return
        count, told, usage = self._count, None, None
        if count.call.is_metered:
            self._look()
            told = usage_at_end(b"".join(self._tail), is_stream=self._is_stream)
            usage = told or self._relayed(meter.expectations)
        meter.end(count, usage, is_error=is_error, is_whole=told is not None and self._is_whole)

    def _relayed(self, expectations: Expectations) -> Usage:
        """What an answer has taken that did not say so."""
        count = self._count
        if not self._is_stream or goes_on(count.call.body):
            return count.claimed
        about = count.prompt or prompt_tokens(count.call.body)
        return Usage(expectations.usual_prompt(count.model, about), self._events)

    async def aclose(self) -> None:
        """Let go of the connection behind it."""
        try:
            self._end()
        finally:
            await self._body.aclose()


def _choices(call: Call) -> int:
    """How many answers a call is counted for."""
    return 1 if call.choices == 1 else max(1, min(call.choices, 100))


def route_of(call: Call) -> str:
    """The path that a call came by, in OpenAI's words, whatever it was really: `/v1/chat/completions`."""
    if not call.verbatim:
        return "/v1/gpt/chat"
    return f"{call.route}/v1/{call.operation}" if not call.operation.startswith("/") else call.route + call.operation
