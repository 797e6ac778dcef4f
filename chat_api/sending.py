"""A call made into a request for one deployment, sent, and its response judged."""

import logging

from msgspec import structs

from chat_api import refusals, translate
from chat_api.credentials import credential, without_key
from chat_api.judging import judged
from chat_api.types import Adaptation, Attempt, Call, Deployment, Reply, Transport

MAX_REMEMBERED_DEPLOYMENTS = 1000

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
        tried: tuple[Adaptation, ...] = ()
        while True:
            learned = (self._learned.get(deployment, ()) if self._learned else ()) + tried
            request, applied = translate.upstream_request(call, deployment, presented, learned)
            response = await self._transport.send(request)
            attempt.queue_seconds = response.queue_seconds
            attempt.connect_seconds = response.connect_seconds
            reply = _without_key(await judged(response, call, deployment, applied), presented[1])
            if reply.status < 400:
                if tried:
                    self._remember(deployment, translate.WITHOUT_USAGE)
                return reply
            adaptation = _adaptation(reply, call)
            if adaptation is translate.WITHOUT_USAGE and adaptation not in learned:
                tried = (adaptation,)  # only the answer tells whether it was that
                continue
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


def _adaptation(reply: Reply, call: Call) -> Adaptation | None:
    """How a call may be sent again that was refused."""
    if reply.status not in (400, 422) or not isinstance(reply.body, bytes):
        return None
    if call.hides_usage and b"stream_options" in reply.body:  # which is not the caller's
        return translate.WITHOUT_USAGE
    if reply.status != 400 or call.verbatim:
        return None
    return refusals.adaptation_for(refusals.read_refusal(reply.status, reply.headers, reply.body), call)


def _without_key(reply: Reply, credential: bytes) -> Reply:
    """A whole reply without the key it was asked with; headers of an error that have it are left out."""
    if not isinstance(reply.body, bytes):
        return reply
    key = credential.removeprefix(b"Bearer ")
    body, headers = without_key(reply.body, key), reply.headers
    if reply.status >= 400:
        headers = tuple(pair for pair in headers if without_key(pair[1], key) is pair[1])
    if body is reply.body and len(headers) == len(reply.headers):
        return reply
    return structs.replace(reply, body=body, headers=headers)
