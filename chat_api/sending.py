"""A call made into a request for one deployment, sent, and its response judged."""

import logging

from msgspec import structs

from chat_api import refusals, translate
from chat_api.credentials import credential
from chat_api.judging import judged
from chat_api.types import Adaptation, Attempt, Call, Deployment, Reply, Transport

MAX_REMEMBERED_DEPLOYMENTS = 1000
MIN_KEY_BYTES = 12  # anything shorter is no key, and may be a word of any message

log = logging.getLogger(__name__)


class Sending:
    """Sends calls to deployments, and remembers which parameters each of them wants otherwise."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._learned: dict[Deployment, tuple[Adaptation, ...]] = {}

    async def send(self, call: Call, attempt: Attempt) -> Reply:
        """The deployment's reply: its answer, or its refusal under a true status.

        A parameter that the deployment refuses and that may be sent otherwise is, once; what was
        changed is in the reply's `adaptations`.

        Args:
            call: what is asked.
            attempt: who is asked; the times of the hop are noted in it.

        Raises:
            GatewayError: there is no credential, or the upstream could not be reached or understood.
        """
        deployment = attempt.deployment
        presented = credential(call, deployment)
        while True:
            learned = self._learned.get(deployment, ()) if self._learned else ()
            request, applied = translate.upstream_request(call, deployment, presented, learned)
            response = await self._transport.send(request)
            attempt.queue_seconds = response.queue_seconds
            attempt.connect_seconds = response.connect_seconds
            reply = _without_key(await judged(response, call, deployment, applied), presented[1])
            if reply.status != 400 or call.verbatim or not isinstance(reply.body, bytes):
                return reply
            refusal = refusals.read_refusal(reply.status, reply.headers, reply.body)
            adaptation = refusals.adaptation_for(refusal, call)
            if adaptation is None or adaptation in learned:
                return reply
            self._remember(deployment, adaptation)
            log.info('deployment "%s" refused %s: %s', deployment.name, adaptation.parameter, adaptation)

    def _remember(self, deployment: Deployment, adaptation: Adaptation) -> None:
        """Learn it for the next attempt; the memory is bounded, and forgets the deployment it learned of first."""
        learned = self._learned.get(deployment, ())
        if adaptation in learned:
            return  # another call has learned it in the meantime
        if not learned and len(self._learned) >= MAX_REMEMBERED_DEPLOYMENTS:
            del self._learned[next(iter(self._learned))]
        self._learned[deployment] = (*learned, adaptation)


def _without_key(reply: Reply, credential: bytes) -> Reply:
    """The reply without the key it was asked with: some servers repeat the one that they refuse."""
    key = credential.removeprefix(b"Bearer ")
    if len(key) < MIN_KEY_BYTES or not isinstance(reply.body, bytes) or key not in reply.body:
        return reply
    return structs.replace(reply, body=reply.body.replace(key, b"***"))
