"""The phases of an exchange, in one fixed and visible order.

Who calls, and whether he may have the model; which deployments may answer him; whether he is within his
limits; what is kept, or in flight already; the relay; and what is to be counted, kept, remembered and written
down of the answer. A phase that is not configured costs nothing.
"""

import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from msgspec import structs

from chat_api.affinity import Affinity, NotedBody, concerns, named_in
from chat_api.callers import Caller, ClientKey
from chat_api.conversing import Conversations
from chat_api.credentials import check_key
from chat_api.errors import AuthError
from chat_api.groups import Groups
from chat_api.headers import media_type
from chat_api.health import Health
from chat_api.keeping import Keeping
from chat_api.keyring import Keyring, anonymous, check_model
from chat_api.metering import Meter
from chat_api.models import Models
from chat_api.pool import Group, Pool
from chat_api.relay import Relay
from chat_api.types import Call, Deployment, Reply, Resource, Secret
from chat_api.upstreams import MAIN


class Reads(NamedTuple):
    """What is read of answers: what they took, and anything at all."""

    usage: bool
    answers: bool


NOBODY_READS = Reads(usage=False, answers=False)


class Gateway:
    """Answers calls from the upstreams.

    Args:
        upstreams: the table of each, by its route.
        pool: who knows the health of their deployments.
        relay: carries the calls.
        client_keys: what callers present to use keys of ours; with none, ours are lent to all who ask.
        meter: counts the calls, if anything is counted.
        keeping: answers from what is kept, and shares what is in flight, if anything is.
        conversations: has written down what is said, if anything is.
        wall: the time, in seconds since 1970.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Models],
        pool: Pool,
        relay: Relay,
        client_keys: Iterable[ClientKey] = (),
        meter: Meter | None = None,
        keeping: Keeping | None = None,
        conversations: Conversations | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._groups = {route: Groups(models, pool) for route, models in upstreams.items()}
        self._pool = pool
        self.budget = relay.budget
        self._relay = relay
        self._keyring = Keyring(client_keys)
        self.meter = meter
        self.keeping = keeping
        self.conversations = conversations
        reads_usage = meter is not None and meter.reads_usage
        self.reads = Reads(reads_usage, reads_usage or keeping is not None or conversations is not None)
        self._wall = wall
        # The upstreams that are asked with keys of ours only.
        self._ours = frozenset(
            route for route, models in upstreams.items() if all(one.key for one in models.deployments)
        )
        # Those whose answers anybody may have, as our keys are lent to all who ask; and where nobody asks who that is.
        self._open_to_all: frozenset[str] = frozenset() if self._keyring else self._ours
        self._unasked: frozenset[str] = frozenset() if meter is not None else self._open_to_all
        # Those that have an answer for whoever has a client key.
        self._keyed = frozenset(
            route for route, models in upstreams.items() if any(one.key for one in models.deployments)
        )

    def admit(self, credential: Secret | None, address: str = "", route: str = MAIN) -> Caller | None:
        """Who calls; before a body is read, a caller is refused for whom no deployment of the upstream could answer.

        Args:
            credential: what the caller presents.
            address: the client's.
            route: the upstream that is addressed.

        Returns:
            The caller; None where nobody asks.

        Raises:
            AuthError: a key is missing, has expired, or is none of those that are asked for.
            Forbidden: the key is not accepted from this address.
        """
        if route in self._unasked:
            return None
        caller = self._keyring.holder(credential, address, self._wall()) if self._keyring else None
        if not (route in self._open_to_all if caller is None else route in self._keyed):
            self._check_any(caller, credential, route)
        return caller if caller is not None or self.meter is None else anonymous(address)

    def holder(self, credential: Secret | None, address: str) -> Caller | None:
        """Whose client key was presented; None if it is none.

        Raises:
            AuthError: the key has expired.
            Forbidden: it is not accepted from this address.
        """
        return self._keyring.holder(credential, address, self._wall()) if self._keyring else None

    def _check_any(self, caller: Caller | None, credential: Secret | None, route: str) -> None:
        refusal: AuthError | None = None
        for deployment in self.models(route).deployments:
            try:
                self.authenticate(caller, credential, deployment)
                check_key(deployment.key or credential, deployment)
                return
            except AuthError as error:
                refusal = error
        if refusal is not None:
            try:
                raise refusal
            finally:
                del refusal  # its trace knows this frame

    def authenticate(self, caller: Caller | None, credential: Secret | None, deployment: Deployment) -> None:
        """Whether a caller may have the deployment's answers, where they are paid for with our key.

        Raises:
            AuthError: client keys are asked for, and none of them was presented.
        """
        if not self._keyring:
            return
        is_known = caller is not None and caller.key is not None
        if deployment.key is None:
            if is_known:  # it would go upstream as if it were a key there
                message = "this upstream is reached with a key of your own for it, not with a key of this server"
                raise AuthError(message, code="invalid_credential")
        elif not is_known:
            raise self._keyring.refusal(credential)

    def handle(self, call: Call) -> Coroutine[Any, Any, Reply]:
        """Answer one call, whose `caller` is who `admit` said.

        Raises:
            GatewayError: the call cannot be answered; the error says with which status.
        """
        groups = self._groups[call.route]
        group, at = groups.of(call)
        key = call.caller.key if call.caller is not None else None
        if key is not None and key.models is not None:
            names = [name for name in (call.model, group.counted_as) if name]
            check_model(key, names, call.operation, is_read=call.method in ("GET", "HEAD"))
        is_open = call.route in (self._open_to_all if key is None else self._ours)
        barred = () if is_open else self._barred(call, group)
        affinity = groups.affinity if groups.affinity is not None and concerns(call) else None
        ask: Callable[..., Coroutine[Any, Any, Reply]] = self._exchange
        more: tuple[Any, ...] = (group, barred, at, affinity)
        if self.keeping is not None and self.keeping.concerns(call):
            ask, more = self.keeping.answer, (group, ask, *more)
        if self.meter is not None:
            ask, more = self.meter.carry, (group.counted_as if call.is_metered else "", ask, *more)
        if self.conversations is not None and (kind := self.conversations.kind(call)) is not None:
            ask, more = self.conversations.follow, (kind, ask, *more)
        return ask(call, *more)

    def _exchange(
        self, call: Call, group: Group, barred: tuple[Health, ...], at: Resource | None, affinity: Affinity | None
    ) -> Coroutine[Any, Any, Reply]:
        if affinity is None:
            return self._relay.exchange(call, group, barred=barred, at=at)
        return self._remembered(call, group, barred, at, affinity)

    async def _remembered(
        self, call: Call, group: Group, barred: tuple[Health, ...], at: Resource | None, affinity: Affinity
    ) -> Reply:
        """The reply to a call that may name, or make, what one resource only knows; its ids are remembered."""
        # Not compressed: what the answer gives away is read here.
        call = structs.replace(call, headers=tuple(pair for pair in call.headers if pair[0] != b"accept-encoding"))
        return _noted(call, await self._relay.exchange(call, group, barred=barred, at=at), affinity)

    def _barred(self, call: Call, group: Group) -> tuple[Health, ...]:
        """The deployments of a group that a caller may not use, where not all of them are asked with the same key.

        A key of the caller's own goes to servers of one kind only, the first one's: what opens Azure is
        none of OpenAI's business.

        Raises:
            AuthError: it may use none of them.
        """
        caller, credential = call.caller, call.credential
        if len(group.keyed_by) == 1:
            self.authenticate(caller, credential, group.members[0].deployment)
            return ()
        barred: list[Health] = []
        theirs: str | None = None  # the kind of server that gets the caller's key
        for member in group.members:
            deployment = member.deployment
            try:
                self.authenticate(caller, credential, deployment)
                check_key(deployment.key or credential, deployment)
            except AuthError:
                barred.append(member)
                if len(barred) == len(group.members):
                    raise
                continue
            if deployment.key is None:
                theirs = theirs or deployment.kind
                if deployment.kind != theirs:
                    barred.append(member)
        return tuple(barred)

    def members(self) -> list[Health]:
        """Every deployment there is: those that are configured with a name, and those that are there under one."""
        configured = [member for member in self._pool.members.values() if member.deployment.name]
        named = [member for groups in self._groups.values() for member in groups.members if member.is_known]
        return list(dict.fromkeys([*configured, *named]))

    def models_by_deployment(self) -> dict[str, list[str]]:
        """Which models each configured deployment answers for, by its label."""
        models: dict[str, list[str]] = {}
        for groups in self._groups.values():
            for model, deployment in groups.models.served:
                models.setdefault(deployment.label, []).append(model)
        return models

    def models(self, route: str = MAIN) -> Models:
        """The table of an upstream."""
        return self._groups[route].models


def _noted(call: Call, reply: Reply, affinity: Affinity) -> Reply:
    """A reply whose ids are remembered, those that are still to come too; what a file holds is none of them."""
    if reply.status >= 300 or media_type(reply.headers) not in ("application/json", "text/event-stream"):
        return reply
    note = partial(affinity.note, resource=reply.deployment.resource, named=named_in(call))
    if isinstance(reply.body, bytes):
        note(reply.body)
        return reply
    return structs.replace(reply, body=NotedBody(reply.body, note))
