"""Calls made into upstream requests: URL, headers and body for Azure's classic and v1 APIs. Pure."""

from urllib.parse import quote

import msgspec
from msgspec import Raw

from chat_api.azure_url import is_deployment_name
from chat_api.errors import RequestError
from chat_api.types import Adaptation, Call, Deployment, Headers, UpstreamRequest

# Versions that select the v1 API, and the query each adds: v1 refuses dated versions outright.
_V1_QUERY = {"v1": "", "preview": "?api-version=preview"}

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def upstream_request(
    call: Call, deployment: Deployment, credential: tuple[bytes, bytes], adaptations: tuple[Adaptation, ...] = ()
) -> tuple[UpstreamRequest, tuple[Adaptation, ...]]:
    """The request that asks `deployment` for `call`, and the adaptations that changed its body.

    Raises:
        RequestError: the deployment's name cannot stand in a path.
    """
    is_v1 = deployment.api_version in _V1_QUERY
    body, applied = adapted_body(call, deployment.name if is_v1 else None, adaptations)
    headers: Headers = (
        (b"content-type", b"application/json"),
        (b"accept", b"text/event-stream" if call.stream else b"application/json"),
        (b"accept-encoding", b"identity"),  # the answer is read here: compressed, it would have to be opened first
        credential,
    )
    return UpstreamRequest("POST", url(call.operation, deployment), headers, body), applied


def url(operation: str, deployment: Deployment) -> str:
    """The URL of an operation at a deployment (Azure's classic API, or its v1 API).

    Raises:
        RequestError: the deployment's name cannot stand in a path.
    """
    version = deployment.api_version
    if version in _V1_QUERY:
        return f"{deployment.base_url}/openai/v1/{operation}{_V1_QUERY[version]}"
    name = deployment.name
    if not is_deployment_name(name):
        raise RequestError(f"model is {name!r}, which no deployment is called", param="model", code="invalid_model")
    return f"{deployment.base_url}/openai/deployments/{quote(name, safe='')}/{operation}?api-version={version}"


def adapted_body(
    call: Call, model: str | None, adaptations: tuple[Adaptation, ...]
) -> tuple[bytes, tuple[Adaptation, ...]]:
    """The call's body with `model` set (where it is not None) and what the deployment taught us applied.

    A renamed parameter keeps its value. One is left out only if it came from the environment's
    defaults: what the caller sent is never dropped. A body that needs no change is not touched.
    """
    if model is None and not adaptations:
        return call.body, ()
    members = _decode_members(call.body)
    applied = []
    for adaptation in adaptations:
        old, new = adaptation.parameter, adaptation.renamed
        if old not in members or new in members or (new is None and old not in call.defaulted):
            continue
        value = members.pop(old)
        if new is not None:
            members[new] = value
        applied.append(adaptation)
    if model is None and not applied:
        return call.body, ()
    if model is not None:
        members["model"] = Raw(msgspec.json.encode(model))
    return msgspec.json.encode(members), tuple(applied)
