"""The phases of an exchange, in one fixed and visible order.

Today: which deployment answers the call's model, then the relay. Keys and limits come before the
relay, what is counted and kept after it; a phase that is not configured costs nothing.
"""

from dataclasses import replace

from chat_api.errors import RequestError
from chat_api.relay import Relay
from chat_api.types import Call, Deployment, Reply


class Gateway:
    """Answers calls from the upstream that `default` describes."""

    def __init__(self, default: Deployment, relay: Relay) -> None:
        self._default = default
        self._relay = relay

    async def handle(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            GatewayError: the call cannot be answered; the error says with which status.
        """
        deployment = self._authorised_model(call)
        return await self._relay.exchange(call, deployment)

    def _authorised_model(self, call: Call) -> Deployment:
        """The deployment that answers the call's model; without one, the default deployment."""
        if call.model:
            return replace(self._default, name=call.model)
        if not self._default.name:
            message = "no model: send the name of a deployment as model, or set DEPLOYMENT_NAME on the server"
            raise RequestError(message, param="model", code="missing_model")
        return self._default
