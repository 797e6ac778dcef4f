"""The phases of an exchange, in one fixed and visible order.

Today: which deployments may answer, whether the caller may use their keys, the relay, and what is to be
remembered of the answer. Limits come before the relay, what is counted and kept after it; a phase that
is not configured costs nothing.
"""

import hashlib
import hmac
from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

from msgspec import structs

from chat_api.affinity import Affinity, NotedBody, concerns, named_in
from chat_api.credentials import check_key
from chat_api.errors import AuthError
from chat_api.groups import Groups
from chat_api.headers import media_type
from chat_api.health import Health
from chat_api.models import Models
from chat_api.pool import Group, Pool
from chat_api.relay import Relay
from chat_api.types import Call, Deployment, Reply, Resource, Secret
from chat_api.upstreams import MAIN


class Gateway:
    """Answers calls from the upstreams.

    Args:
        upstreams: the table of each, by its route.
        pool: who knows the health of their deployments.
        relay: carries the calls.
        client_keys: what callers present to use keys of ours; with none, ours are lent to all who ask.
    """

    def __init__(
        self, upstreams: Mapping[str, Models], pool: Pool, relay: Relay, client_keys: Iterable[Secret] = ()
    ) -> None:
        self._groups = {route: Groups(models, pool) for route, models in upstreams.items()}
        self._pool = pool
        self.budget = relay.budget
        self._relay = relay
        self._client_keys = [_digest(key) for key in client_keys]
        # The upstreams whose answers anybody may have: our keys are lent to all who ask, and none is missing.
        self._open_to_all = frozenset(
            route
            for route, models in upstreams.items()
            if not self._client_keys and all(one.key for one in models.deployments)
        )

    def handle(self, call: Call) -> Coroutine[Any, Any, Reply]:
        """Answer one call.

        Raises:
            GatewayError: the call cannot be answered; the error says with which status.
        """
        groups = self._groups[call.route]
        group, at = groups.of(call)
        barred = () if call.route in self._open_to_all else self._barred(call.credential, group)
        if groups.affinity is None or not concerns(call):
            return self._relay.exchange(call, group, barred=barred, at=at)
        return self._remembered(call, group, barred, at, groups.affinity)

    async def _remembered(
        self, call: Call, group: Group, barred: tuple[Health, ...], at: Resource | None, affinity: Affinity
    ) -> Reply:
        """The reply to a call that may name, or make, what one resource only knows; its ids are remembered."""
        # Not compressed: what the answer gives away is read here.
        call = structs.replace(call, headers=tuple(pair for pair in call.headers if pair[0] != b"accept-encoding"))
        return _noted(call, await self._relay.exchange(call, group, barred=barred, at=at), affinity)

    def admit(self, credential: Secret | None, route: str = MAIN) -> None:
        """Refuse, before a body is read, a caller for whom no deployment of the upstream could answer.

        Raises:
            AuthError: a key is missing, or is none of those that are asked for.
        """
        if route in self._open_to_all:
            return
        refusal: AuthError | None = None
        for deployment in self.models(route).deployments:
            try:
                self.authenticate(credential, deployment)
                check_key(deployment.key or credential, deployment)
                return
            except AuthError as error:
                refusal = error
        if refusal is not None:
            try:
                raise refusal
            finally:
                del refusal  # its trace knows this frame

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

    def authenticate(self, credential: Secret | None, deployment: Deployment) -> None:
        """Whether a caller may have the deployment's answers, where they are paid for with our key.

        Raises:
            AuthError: client keys are asked for, and none of them was presented.
        """
        if not self._client_keys:
            return
        digest = _digest(credential) if credential else b""
        known = sum(hmac.compare_digest(digest, key) for key in self._client_keys) > 0  # all of them: no early end
        if deployment.key is None:
            if known:  # it would go upstream as if it were a key there
                message = "this upstream is reached with a key of your own for it, not with a key of this server"
                raise AuthError(message, code="invalid_credential")
            return
        if not known:
            asked = "the key that was presented is not one of this server's" if credential else "no key"
            message = f"{asked}; send one of its client keys as Authorization: Bearer or as an api-key header"
            raise AuthError(message, code="invalid_credential" if credential else "missing_credential")

    def _barred(self, credential: Secret | None, group: Group) -> tuple[Health, ...]:
        """The deployments of a group that a caller may not use, where not all of them are asked with the same key.

        A key of the caller's own goes to servers of one kind only, the first one's: what opens Azure is
        none of OpenAI's business.

        Raises:
            AuthError: it may use none of them.
        """
        if len(group.keyed_by) == 1:
            self.authenticate(credential, group.members[0].deployment)
            return ()
        barred: list[Health] = []
        theirs: str | None = None  # the kind of server that gets the caller's key
        for member in group.members:
            deployment = member.deployment
            try:
                self.authenticate(credential, deployment)
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


def _noted(call: Call, reply: Reply, affinity: Affinity) -> Reply:
    """A reply whose ids are remembered, those that are still to come too; what a file holds is none of them."""
    if reply.status >= 300 or media_type(reply.headers) not in ("application/json", "text/event-stream"):
        return reply
    note = partial(affinity.note, resource=reply.deployment.resource, named=named_in(call))
    if isinstance(reply.body, bytes):
        note(reply.body)
        return reply
    return structs.replace(reply, body=NotedBody(reply.body, note))


def _digest(key: Secret) -> bytes:
    return hashlib.sha256(key.reveal().encode()).digest()
