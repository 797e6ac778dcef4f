"""Relays and gateways over scripted transports, as the app builds them."""

from collections.abc import Iterable, Mapping
from typing import Any

from chat_api.asking import Asking
from chat_api.budget import RetryBudget
from chat_api.gateway import Gateway
from chat_api.models import Models
from chat_api.pool import Group, Pool
from chat_api.relay import Relay, Retries
from chat_api.types import Deployment, Secret, Transport


def relay_of(transport: Transport, retries: Retries | None = None, *, sleep: Any = None, **clock: Any) -> Relay:
    """A relay that sends over this transport; `clock` is what `Asking` takes."""
    budget = RetryBudget()
    options = {"sleep": sleep} if sleep else {}
    return Relay(Asking(transport, budget, **clock), budget, retries or Retries(), **options)


def group_of(*deployments: Deployment) -> Group:
    """The group of a model that these answer for."""
    return Pool(deployments).group("m", (None, deployments))


def gateway_of(
    models: Mapping[str, Models],
    transport: Transport,
    client_keys: Iterable[Secret] = (),
    retries: Retries | None = None,
    **clock: Any,
) -> Gateway:
    """A gateway in front of this transport."""
    pool = Pool([one for table in models.values() for one in table.deployments])
    return Gateway(models, pool, relay_of(transport, retries, **clock), client_keys)
