"""Relays and gateways over scripted transports, as the app builds them."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from chat_api.asking import Asking
from chat_api.budget import RetryBudget
from chat_api.callers import ClientKey, unnamed_key
from chat_api.gateway import Gateway
from chat_api.keyring import anonymous
from chat_api.metering import Meter
from chat_api.models import Models
from chat_api.pool import Group, Pool
from chat_api.relay import Relay, Retries
from chat_api.types import Call, Deployment, Secret, Transport


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
    client_keys: Iterable[Secret | ClientKey] = (),
    retries: Retries | None = None,
    meter: Meter | None = None,
    **clock: Any,
) -> Gateway:
    """A gateway in front of this transport."""
    pool = Pool([one for table in models.values() for one in table.deployments])
    keys = [key if isinstance(key, ClientKey) else unnamed_key(key.reveal()) for key in client_keys]
    wall = {"wall": clock["wall"]} if "wall" in clock else {}
    return Gateway(models, pool, relay_of(transport, retries, **clock), keys, meter, **wall)


def known(gateway: Gateway, call: Call, address: str = "127.0.0.1") -> Call:
    """The call with whom its credential makes its caller, as the endpoints have it."""
    caller = gateway.holder(call.credential, address)
    return structs.replace(call, caller=caller or (anonymous(address) if gateway.meter else None))
