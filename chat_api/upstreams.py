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
        default = [emulator or _default(settings)]
        tables[MAIN] = _table(settings, default, emulated)
    return tables


def _table(settings: Settings, default: list[Deployment], also: Sequence[str] = ()) -> Models:
    groups: dict[str, list[Deployment]] = {name: [replace(default[0], name=name)] for name in also}
    configured = _configured(settings, default[0])
    for model, deployment in configured:
        groups.setdefault(model, []).append(deployment)
    by_name = {one.name: one for _, one in configured}
    for model, name in settings.model_mapper:
        groups[model] = [by_name[name]] if name in by_name else [replace(one, name=name) for one in default]
    return Models(groups, default, settings.unknown_model)


def _default(settings: Settings) -> Deployment:
    """ENDPOINT's deployment; without an ENDPOINT the file's, of which DEPLOYMENT_NAME may name one, or the first."""
    name = settings.deployment_name or ""
    if settings.endpoint is not None:
        return Deployment(name, settings.endpoint.base_url, settings.api_version, settings.key)
    placed = [(row, row.endpoint) for row in settings.config.deployments if row.endpoint is not None]
    rows = [(row, endpoint) for row, endpoint in placed if name in (row.name, *row.models)] or placed
    row, endpoint = rows[0]
    # KEY is a key of Azure's: no other server ever gets it.
    key = settings.key if row.kind == "azure" else None
    return replace(_placed(row, endpoint, settings, key), name=name)


def _configured(settings: Settings, default: Deployment) -> list[tuple[str, Deployment]]:
    """The `(model, deployment)` pairs of the file; what an entry leaves out is the default deployment's."""
    pairs = []
    for row in settings.config.deployments:
        if row.endpoint is None:
            version, key = row.api_version or default.api_version, row.key or default.key
            deployment = _shared(row, replace(default, name=row.name, api_version=version, key=key))
        else:
            is_default = (row.endpoint.base_url, row.kind) == (default.base_url, default.kind)
            placed = _placed(row, row.endpoint, settings, default.key if is_default else None)
            deployment = _shared(row, placed)
        pairs += [(model, deployment) for model in row.models]
    return pairs


def _placed(row: ConfiguredDeployment, endpoint: Endpoint, settings: Settings, key: Secret | None) -> Deployment:
    """An entry at its own endpoint, with `key` if it has none of its own."""
    is_azure = row.kind == "azure"
    version = row.api_version or settings.api_version if is_azure else server_version(endpoint.base_url)
    return Deployment(row.name, endpoint.base_url, version, row.key or key, row.kind)


def _shared(row: ConfiguredDeployment, deployment: Deployment) -> Deployment:
    """The deployment with the share of its model's calls that the entry gives it."""
    return replace(deployment, priority=row.priority, weight=row.weight, max_in_flight=row.max_in_flight)


def _keyed(server: Server) -> list[Deployment]:
    """The server once for each of its keys, which are used in turn; once without a key if it has none."""
    version = server_version(server.root)
    return [Deployment("", server.root, version, key, "openai") for key in server.keys or (None,)]
