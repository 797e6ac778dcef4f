"""The tables of all upstreams that the settings name, by the path prefix that leads to each. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chat_api.azure_url import Endpoint, server_version
from chat_api.config_file import ConfiguredDeployment
from chat_api.models import Models
from chat_api.settings import Server, Settings
from chat_api.types import Deployment, Secret

MAIN = ""  # the route of the upstream that answers at /v1


def upstreams(
    settings: Settings, emulator: Deployment | None = None, emulated: Sequence[str] = ()
) -> Mapping[str, Models]:
    """Route → table; `emulator` is the default deployment where no upstream is set, `emulated` what else it has."""
    tables = {server.prefix: Models({}, _keyed(server)) for server in (*settings.extra, *settings.openai)}
    if settings.upstream == "openai":
        main = settings.openai[0]
        default = [replace(one, name=settings.deployment_name or "") for one in _keyed(main)]
        tables[MAIN] = _table(settings, default)
    else:
        default = [emulator] if emulator else _default(settings)
        tables[MAIN] = _table(settings, default, emulated)
    return tables


def _table(settings: Settings, default: list[Deployment], also: Sequence[str] = ()) -> Models:
    groups: dict[str, list[Deployment]] = {name: [replace(default[0], name=name)] for name in also}
    configured = _configured(settings, default)
    for model, deployment in configured:
        groups.setdefault(model, []).append(deployment)
    for model, name in settings.model_mapper:
        known = dict.fromkeys(one for _, one in configured if one.name == name)
        groups[model] = list(known) or [replace(one, name=name) for one in default]
    return Models(groups, default, settings.unknown_model, settings.fallbacks)


def _default(settings: Settings) -> list[Deployment]:
    """ENDPOINT's deployments; without an ENDPOINT the file's that DEPLOYMENT_NAME may name, or its first."""
    if settings.endpoints:
        keys = settings.keys if len(settings.keys) > 1 else (settings.keys or (None,)) * len(settings.endpoints)
        return [
            Deployment(one.deployment or "", one.base_url, one.api_version or settings.api_version, key)
            for one, key in zip(settings.endpoints, keys, strict=True)
        ]
    name = settings.deployment_name or ""
    placed = [(row, row.endpoint) for row in settings.config.deployments if row.endpoint is not None]
    rows = [(row, endpoint) for row, endpoint in placed if name in (row.name, *row.models)] or placed
    row, endpoint = rows[0]
    # KEY is a key of Azure's: no other server ever gets it.
    key = settings.keys[0] if settings.keys and row.kind == "azure" else None
    return [replace(_placed(row, endpoint, settings, key), name=name)]


def _configured(settings: Settings, default: Sequence[Deployment]) -> list[tuple[str, Deployment]]:
    """The `(model, deployment)` pairs of the file; an entry without an endpoint is at each of the default's."""
    pairs = []
    for row in settings.config.deployments:
        if row.endpoint is None:
            places = [_inherited(row, one) for one in default]
        else:
            at = (row.endpoint.base_url, row.kind)
            lent = next((one.key for one in default if (one.base_url, one.kind) == at), None)
            places = [_placed(row, row.endpoint, settings, lent)]
        deployments = dict.fromkeys(_shared(row, one) for one in places)
        pairs += [(model, deployment) for model in row.models for deployment in deployments]
    return pairs


def _inherited(row: ConfiguredDeployment, default: Deployment) -> Deployment:
    """An entry at a default deployment's resource; what it leaves out is that one's."""
    version, key = row.api_version or default.api_version, row.key or default.key
    return replace(default, name=row.name, api_version=version, key=key)


def _placed(row: ConfiguredDeployment, endpoint: Endpoint, settings: Settings, key: Secret | None) -> Deployment:
    """An entry at its own endpoint, with `key` if it has none of its own."""
    if row.kind == "azure":
        known = (one.api_version for one in settings.endpoints if one.base_url == endpoint.base_url)
        version = row.api_version or next(known, None) or settings.api_version
    else:
        version = server_version(endpoint.base_url)
    return Deployment(row.name, endpoint.base_url, version, row.key or key, row.kind, in_file=True)


def _shared(row: ConfiguredDeployment, deployment: Deployment) -> Deployment:
    """The deployment with the share of its model's calls that the entry gives it."""
    return replace(deployment, priority=row.priority, weight=row.weight, max_in_flight=row.max_in_flight)


def _keyed(server: Server) -> list[Deployment]:
    """The server once for each of its keys, which are used in turn; once without a key if it has none."""
    version = server_version(server.root)
    return [Deployment("", server.root, version, key, "openai") for key in server.keys or (None,)]
