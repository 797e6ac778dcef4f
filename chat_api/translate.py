"""Calls made into upstream requests: URL, headers and body for each kind of upstream. Pure.

Azure's classic API names the deployment in the path and ignores `model`; its v1 API and every
OpenAI-compatible server read `model` from the body. What the body need not change for, it does not.
"""

from functools import lru_cache
from urllib.parse import quote

import msgspec
from msgspec import Raw

from chat_api.azure_url import is_deployment_name
from chat_api.errors import RequestError
from chat_api.headers import accepts_gzip
from chat_api.operations import CHAT, CLASSIC_ONLY, DEPLOYMENT_SCOPED, MODEL_REQUIRED
from chat_api.routing import with_model, with_usage
from chat_api.types import Adaptation, Body, Call, Deployment, Headers, UpstreamRequest

# Versions that select the v1 API, and the query each adds: v1 refuses dated versions outright.
_V1_QUERY = {"v1": "", "preview": "api-version=preview"}

USAGE_SINCE = "2024-09-01"
WITHOUT_USAGE = Adaptation("stream_options", None)  # of a server that does not know it

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def upstream_request(
    call: Call, deployment: Deployment, credential: tuple[bytes, bytes], adaptations: tuple[Adaptation, ...] = ()
) -> tuple[UpstreamRequest, tuple[Adaptation, ...]]:
    """The request that asks `deployment` for `call`, and the adaptations that changed its body.

    Raises:
        RequestError: the deployment's name cannot stand in a path.
    """
    body, applied = adapted_body(call, adaptations)
    if call.hides_usage and isinstance(body, bytes) and tells_usage(call, deployment, adaptations):
        body = with_usage(body)
    if (name := model_for_body(call, deployment)) is not None:
        body = with_model(body, name) if isinstance(body, bytes) else body.with_model(name)
    is_read = call.stream or call.is_read
    headers = _relayed(call.headers, is_read, credential) if call.verbatim else _asked(call.stream, credential)
    return UpstreamRequest(call.method, url(call, deployment), headers, body, deployment.url_setting), applied


def url(call: Call, deployment: Deployment) -> str:
    """The URL of a call at a deployment: at an OpenAI-compatible server, in Azure's v1 API or its classic one.

    Raises:
        RequestError: the deployment's name cannot stand in a path.
    """
    base, operation, version = deployment.base_url, call.operation, deployment.api_version
    if deployment.kind == "openai":
        api = f"{base}/{version}" if version and not operation.startswith("/") else base
        return _with_query(f"{api}/{operation.removeprefix('/')}", call.query)
    if version in _V1_QUERY and operation not in CLASSIC_ONLY:
        return _with_query(f"{base}/openai/v1/{operation}", call.query, _V1_QUERY[version])
    dated = f"api-version={CLASSIC_ONLY[operation] if version in _V1_QUERY else version}"
    if operation not in DEPLOYMENT_SCOPED:
        return _with_query(f"{base}/openai/{operation}", call.query, dated)
    return _with_query(_scoped(base, deployment.name, operation), call.query, dated)


@lru_cache(maxsize=1024)
def _scoped(base_url: str, name: str, operation: str) -> str:
    """The URL of an operation of a deployment; few of them come again and again."""
    if not is_deployment_name(name):
        raise RequestError(f"model is {name!r}, which no deployment is called", param="model", code="invalid_model")
    return f"{base_url}/openai/deployments/{quote(name, safe='')}/{operation}"


def model_for_body(call: Call, deployment: Deployment) -> str | None:
    """What the body's `model` must become for the deployment to be asked; None where it may stay as it is."""
    is_azure = deployment.kind == "azure"
    is_v1 = deployment.api_version in _V1_QUERY and call.operation not in CLASSIC_ONLY
    if is_azure and not is_v1 and call.operation in DEPLOYMENT_SCOPED:
        return None  # the path says it
    if call.model_in_body is None and call.operation not in MODEL_REQUIRED:
        return None  # that a thread, say, is created has no model
    if not deployment.name or deployment.name == call.model_in_body:
        return None
    return None if isinstance(call.body, bytes) and not call.body.strip() else deployment.name  # a GET has no body


def tells_usage(call: Call, deployment: Deployment, adaptations: tuple[Adaptation, ...] = ()) -> bool:
    """Whether a deployment's streams tell what they took if they are asked to.

    That is a parameter of chats since 2024-09-01-preview; a server that refuses it is not asked again.
    """
    if call.operation not in CHAT or WITHOUT_USAGE in adaptations:
        return False
    if deployment.kind == "openai":
        return True
    version = deployment.api_version
    return (CLASSIC_ONLY.get(call.operation, "9") if version in _V1_QUERY else version) >= USAGE_SINCE


def adapted_body(call: Call, adaptations: tuple[Adaptation, ...]) -> tuple[bytes | Body, tuple[Adaptation, ...]]:
    """The call's body with what the deployment taught us applied.

    A renamed parameter keeps its value. One is left out only if it came from the environment's
    defaults: what the caller sent is never dropped. A body that needs no change is not touched.
    """
    if not adaptations or call.verbatim or not isinstance(call.body, bytes):
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
    return (msgspec.json.encode(members), tuple(applied)) if applied else (call.body, ())


# The headers say what is wanted. An event stream is read here, event by event, and what the simple
# endpoint asks for is read whole: compressed, either would have to be opened first. Everything else
# may come as the caller can read it, which for us to be able to read an error means gzip at the most.
# A client sends the same ones again and again, so the last few sets are kept.


@lru_cache(maxsize=16)
def _asked(stream: bool, credential: tuple[bytes, bytes]) -> Headers:
    accept = b"text/event-stream" if stream else b"application/json"
    return (
        (b"content-type", b"application/json"),
        (b"accept", accept),
        (b"accept-encoding", b"identity"),
        credential,
    )


@lru_cache(maxsize=128)
def _relayed(headers: Headers, is_read: bool, credential: tuple[bytes, bytes]) -> Headers:
    coding = b"gzip" if not is_read and accepts_gzip(headers) else b"identity"
    kept = [pair for pair in headers if pair[0] != b"accept-encoding"]
    return (*kept, (b"accept-encoding", coding), credential)


def _with_query(url: str, *parts: str) -> str:
    query = "&".join(part for part in parts if part)
    return f"{url}?{query}" if query else url
