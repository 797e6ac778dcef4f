"""Calls that are counted: admitted within their limits, and settled with the tokens that they really took."""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from msgspec import Struct, structs

from chat_api.caching import Source
from chat_api.callers import Caller
from chat_api.counting import Account, Claim, Grant, Price, Store, Taken, Usage
from chat_api.errors import GatewayError
from chat_api.expectations import Expectation, Expectations
from chat_api.headers import QUOTA, first, media_type
from chat_api.ledger import Ledger
from chat_api.limited import quota, refusal, told_of, too_large
from chat_api.metered_body import MeteredBody
from chat_api.operations import route_of
from chat_api.plans import Plan, Planner
from chat_api.tokens import goes_on, prompt_tokens, usage_in
from chat_api.trail import FALLBACK
from chat_api.types import Attempt, ByteStream, Call, Deployment, Headers, Reply

MAX_LINES = 4096  # callers may name models that nobody has configured, and come from anywhere


class Line(Struct):
    """What the calls of one caller with one model, on one route, have in common."""

    plan: Plan | None  # None if nothing is counted
    ends: float | None  # when there is another one; None for never
    expectation: Expectation
    price: Price | None  # of the model, or of none
    account: Account | None = None
    # Who answered last, what that is called where it is counted, and its price.
    deployment: Deployment | None = None
    label: str = ""
    last_price: Price | None = None


class Count(Struct):
    """What a call has taken so far, and where that is counted."""

    call: Call
    model: str
    line: Line
    prompt: int = 0  # about how many tokens, by its size
    reserved_prompt: int = 0  # how many it may be
    tokens: int = 0  # that it claimed
    cost: int = 0
    taken: Taken | None = None  # where its line has an account; else there are claims
    claims: tuple[Claim, ...] = ()
    grant: Grant = Grant()
    source: Source | None = None  # of an answer that no upstream was asked for
    price: Price | None = None  # of such an answer

    @property
    def is_free(self) -> bool:
        """Whether its answer takes nothing, as somebody else is counted for it."""
        return self.source is not None and self.source.is_free

    @property
    def claimed(self) -> Usage:
        """What counts where an answer says nothing: one that is still to be made, say, in the background."""
        prompt = min(self.reserved_prompt, self.tokens)
        return Usage(prompt, self.tokens - prompt)

    @property
    def is_told(self) -> bool:
        """Whether its caller is told of limits of ours, as far as anybody counts, and of nobody else's."""
        plan = self.line.plan
        return plan is not None and bool(plan.requests or plan.tokens or plan.of_model)

    @property
    def quota(self) -> Headers:
        """What its caller is told of his limits."""
        if self.taken is not None:
            return quota(self.taken.requests, self.taken.tokens)
        return told_of(self.line.plan, self.grant) if self.line.plan is not None else ()


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
        self._lines: dict[tuple[str, str, str], Line] = {}
        self.refused = 0  # calls, since the start
        # Whether anybody wants to know what answers took.
        self.reads_usage = ledger is not None

    async def carry(self, call: Call, model: str, ask: Callable[..., Awaitable[Reply]], *more: Any) -> Reply:
        """The reply to a call, once it is admitted; what it took is counted when it has ended, however it does.

        Args:
            call: what is asked.
            model: what the model is called where it is counted; "" if there is none.
            ask: asks the upstream; it gets the call, and what is known of it besides.
            more: that.

        Raises:
            RateLimited: it is beyond a limit.
            StoreDown: nobody can say.
            GatewayError: the upstream gave no answer.
        """
        count = self._begin(call, model)
        if count.taken is None and count.line.plan is not None:
            await self._ask(count, count.line.plan)
        try:
            reply = await ask(call, *more)
        except BaseException as error:
            self.end(count, None, is_error=isinstance(error, GatewayError))
            if isinstance(error, GatewayError):
                error.headers += tuple(count.quota)
            raise
        return self._counted(reply, count)

    def _begin(self, call: Call, model: str) -> Count:
        """What a call claims, charged if it is an ordinary one."""
        assert call.caller is not None  # noqa: S101 - who calls is known where calls are counted
        route = self._planner.place(route_of(call)) if self._planner.tells_routes else ""
        line = self._lines.get((call.caller.subject, route, model))
        if line is None or (line.ends is not None and self._wall() >= line.ends):
            line = self._line(call.caller, route, model)
        plan = line.plan
        if plan is not None and plan.counts_tokens:
            count = self._estimated(call, model, line, plan)
        else:
            count = Count(call, model, line)
        if line.account is not None:
            count.taken = line.account.admit(count.tokens, count.cost)
        return count

    def _line(self, caller: Caller, route: str, model: str) -> Line:
        if len(self._lines) >= MAX_LINES:
            del self._lines[next(iter(self._lines))]
        plan = self._planner.plan(caller, route, model)
        ends = plan.ends if plan is not None and plan.budget else None
        line = Line(plan, ends, self.expectations.of(model), self._prices.get(model.lower()))
        self._lines[caller.subject, route, model] = line
        return line

    def _estimated(self, call: Call, model: str, line: Line, plan: Plan) -> Count:
        """What a call may take."""
        prompt, stated, most = prompt_tokens(call.body), call.most_tokens, plan.most_tokens
        reserved = line.expectation.of_prompt(prompt)
        completion = line.expectation.of_answer() * _choices(call) if stated is None else stated
        tokens = reserved + completion
        if most is not None and tokens > most:
            if prompt + (stated or 0) > most:
                raise too_large(prompt, stated, most)
            tokens = most  # it gets through when there is nobody else
        cost = line.price.cost(Usage(reserved, completion)) if plan.budget and line.price is not None else 0
        return Count(call, model, line, prompt, reserved, tokens, cost)

    async def _ask(self, count: Count, plan: Plan) -> None:
        """Have the store admit a call that no account did."""
        count.claims = plan.claims(count.tokens, count.cost)
        granted = self.store.admit(count.claims)
        count.grant = granted if isinstance(granted, Grant) else await granted
        if count.grant.refused is not None:
            self.refused += 1
            raise refusal(plan, count.grant, count.tokens, self._wall())
        count.line.account = self.store.account(plan)

    def _counted(self, reply: Reply, count: Count) -> Reply:
        """The reply, which is settled now or when its body has ended."""
        body: bytes | ByteStream = reply.body
        if reply.source is not None:
            count.source, count.price = reply.source, self._price_of(reply, count.line)
        if reply.status >= 400:
            self.end(count, None, is_error=True)
            return _retold(reply, (*count.quota,)) if count.is_told else reply
        if isinstance(body, bytes) and count.is_free:
            self.end(count, None)
        elif isinstance(body, bytes):
            usage = usage_in(body) if count.call.is_metered else None
            # What is only claimed teaches nothing: it would be expected of the next, and a little more.
            self.end(count, usage or (count.claimed if count.call.is_metered else None), is_whole=usage is not None)
        else:
            is_stream = media_type(reply.headers) == "text/event-stream"
            body = MeteredBody(
                body, partial(self._ended, count, is_stream), lines=_lines(count.call) if is_stream else 0
            )
        if count.is_told:
            if told := count.quota:
                more = (reply.adaptations, told, reply.kept, reply.source)
                return Reply(reply.status, reply.headers, body, reply.deployment, *more)
            reply = _retold(reply, ())
        elif body is reply.body:
            return reply
        return structs.replace(reply, body=body)

    def _ended(
        self, count: Count, is_stream: bool, told: Usage | None, events: int, is_error: bool, is_whole: bool
    ) -> None:
        """A body has ended, or nobody reads on.

        Where it did not say what it took, it is as many tokens as events have gone on: Azure puts one into each.
        """
        usage, call = told, count.call
        if not call.is_metered or count.is_free:
            usage = None
        elif told is None and (not is_stream or goes_on(call.body)):
            usage = count.claimed
        elif told is None:
            prompt = count.line.expectation.usual_prompt(count.prompt or prompt_tokens(call.body))
            usage = Usage(prompt, events)
        self.end(count, usage, is_error=is_error, is_whole=is_whole)

    def end(self, count: Count, usage: Usage | None, *, is_error: bool = False, is_whole: bool = True) -> None:
        """A call has ended.

        Args:
            count: what it claimed.
            usage: what it took; None if that is nothing.
            is_error: whether it failed.
            is_whole: whether its answer came to its end.
        """
        call, line = count.call, count.line
        last = call.trail[-1] if call.trail else None
        if last is None:
            label, price = count.source.name if count.source is not None else "-", count.price
        elif last.deployment is line.deployment and last.fallback is None:
            label, price = line.label, line.last_price
        else:
            label, price = self._answered(line, last)
        plan, took, cost = line.plan, 0, 0
        if usage is not None:
            took = usage.prompt + usage.completion
            if price is not None:
                cost = price.cost(usage)
        if plan is not None:
            if count.taken is not None and line.account is not None:
                line.account.settle(count.taken, took - count.tokens, cost - count.cost)
            else:
                self.store.settle(count.claims, count.grant, plan.changes(took - count.tokens, cost - count.cost))
            if usage is not None and is_whole and plan.counts_tokens:
                line.expectation.note(count.prompt, usage, _choices(call))
        if self._ledger is not None and call.caller is not None:
            self._ledger.note(call.caller.name, count.model, label, usage, is_error=is_error, cost=cost)

    def _price_of(self, reply: Reply, line: Line) -> Price | None:
        """What the tokens of an answer cost that another caller's call was given, should they have to be paid for."""
        stand_in = first(reply.kept, FALLBACK)
        price = self._prices.get(stand_in.decode("latin-1").lower()) if stand_in is not None else line.price
        return price or self._prices.get(reply.deployment.name.lower())

    def _answered(self, line: Line, last: Attempt) -> tuple[str, Price | None]:
        """What the deployment that was asked last is called where it is counted, and what its tokens cost."""
        deployment = last.deployment
        own = self._prices.get(deployment.name.lower())
        if last.fallback is not None:  # what stood in for a model has its own price
            return deployment.label, self._prices.get(last.fallback.lower()) or own
        line.deployment, line.label, line.last_price = deployment, deployment.label, line.price or own
        return line.label, line.last_price


def _retold(reply: Reply, quota: Headers) -> Reply:
    """A reply that tells of our limits, if we know them, but not of the upstream's."""
    headers = (*[pair for pair in reply.headers if pair[0] not in QUOTA], *quota)
    return structs.replace(reply, headers=headers)


def _lines(call: Call) -> int:
    """How many lines an event has: that of an answer of the Responses API has a name."""
    return 3 if call.operation == "responses" else 2


def _choices(call: Call) -> int:
    """How many answers a call is counted for."""
    return 1 if call.choices == 1 else max(1, min(call.choices, 100))
