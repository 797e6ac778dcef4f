"""The phases of an exchange, in one fixed and visible order.

Today: which deployment answers the call's model, whether the caller may use its key, then the relay.
Limits come before the relay, what is counted and kept after it; a phase that is not configured costs
nothing.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from itertools import count

from chat_api.credentials import check_key
from chat_api.errors import AuthError
from chat_api.models import Models
from chat_api.operations import MODEL_REQUIRED, is_unrouted
from chat_api.relay import Relay
from chat_api.types import Call, Deployment, Reply, Secret
from chat_api.upstreams import MAIN


class Gateway:
    """Answers calls from the upstreams.

    Args:
        upstreams: the table of each, by its route.
        relay: carries the calls.
        client_keys: what callers present to use keys of ours; with none, ours are lent to all who ask.
    """

    def __init__(self, upstreams: Mapping[str, Models], relay: Relay, client_keys: Iterable[Secret] = ()) -> None:
        self._upstreams = upstreams
        self._relay = relay
        self._client_keys = [_digest(key) for key in client_keys]
        self._turns = count()

    async def handle(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            GatewayError: the call cannot be answered; the error says with which status.
        """
        deployment = self._deployment(call)
        self.authenticate(call.credential, deployment)
        return await self._relay.exchange(call, deployment)

    def admit(self, credential: Secret | None, route: str = MAIN) -> None:
        """Refuse, before a body is read, a caller for whom no deployment of the upstream could answer.

        Raises:
            AuthError: a key is missing, or is none of those that are asked for.
        """
        refusal: AuthError | None = None
        for deployment in self._upstreams[route].deployments:
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

    def models(self, route: str = MAIN) -> Models:
        """The table of an upstream."""
        return self._upstreams[route]

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

    def _deployment(self, call: Call) -> Deployment:
        """The deployment that answers the call's model, or that holds what belongs to no model; several take turns."""
        models = self._upstreams[call.route]
        needs_model = call.operation in MODEL_REQUIRED and not is_unrouted(call.method, call.operation)
        if not (call.model or needs_model):
            return models.resource()[0]  # always the same: what one account has made the next does not know
        group = models.group(call.model)
        return group[next(self._turns) % len(group)] if len(group) > 1 else group[0]


def _digest(key: Secret) -> bytes:
    return hashlib.sha256(key.reveal().encode()).digest()
