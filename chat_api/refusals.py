"""What an upstream's error says: Azure's three families of bodies, HTML and plain text, as one error.

Pure. It keeps Azure's message, adds a hint where the gateway knows better than Azure what to change,
and decides whether a refused parameter can be sent otherwise. Shapes as observed on Azure's wire:

    1. {"error": {"message", "type", "param", "code", "innererror"?}}   the model's own
    2. {"error": {"code", "message"}}                                   the front end
    3. {"statusCode", "message", "activityId"?}                         API Management
"""

import html
import re
from typing import Any

import msgspec
from msgspec import Raw, structs

from chat_api.errors import UpstreamError, UpstreamRefusal
from chat_api.headers import media_type, relayed
from chat_api.operations import CHAT, DEPLOYMENT_SCOPED
from chat_api.retrying import bounded
from chat_api.types import Adaptation, Call, Deployment, Headers, Reply

_MAX_TEXT = 500
_CHOICES = b'{"choices":[{'  # Azure sorts the members
_UNSUPPORTED = ("unsupported_parameter", "unsupported_value")
_NAMED_PARAMETER = re.compile(r"Unsupported (?:parameter|value): '(\w+)'")
# Errors that arrive inside a 200 have no status; their code or type stands for one.
_STATUS_BY_WORD = {
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "content_filter": 400,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "timeout": 408,
    "server_error": 500,
}


def read_refusal(status: int, headers: Headers, body: bytes) -> UpstreamRefusal:
    """The error in an upstream's answer, whatever shape it came in; retry headers and ids are kept."""
    detail = _detail(body)
    message = _text(detail.get("message")) or _without_json(status, body)
    return UpstreamRefusal(
        message,
        status=status,
        type=_text(detail.get("type")),
        code=_text(detail.get("code")),
        param=_text(detail.get("param")),
        inner=detail.get("innererror") or detail.get("inner_error"),
        headers=relayed(headers),
    )


def read_refusal_in_200(headers: Headers, body: bytes) -> UpstreamRefusal | None:
    """The error in a 200's body or in a stream's first event, under the status it stands for; None if it has none."""
    detail = _detail(body)
    if not detail.get("message") and not detail.get("code"):
        return None
    return read_refusal(_status(detail), headers, body)


def accepted(reply: Reply, call: Call) -> Reply:
    """The reply, if it is an answer of the kind that was asked for.

    Raises:
        UpstreamError: it is the upstream's error, with a hint where there is one, or no stream.
    """
    if not isinstance(reply.body, bytes):
        return reply
    if reply.status >= 300:
        raise explained(read_refusal(reply.status, reply.headers, reply.body), reply.deployment, call)
    return reply


def truly(reply: Reply, call: Call) -> Reply:
    """A whole reply, of JSON that is not compressed, under its true status: an error may come as a 200.

    Raises:
        UpstreamError: there is nothing in it, or no events where they were asked for.
    """
    body = reply.body
    if reply.status >= 300 or not isinstance(body, bytes):
        return reply
    if reply.status == 200 and (not body or body.isspace()):
        raise UpstreamError(f"{reply.deployment.host} answered 200 with nothing in it", code="not_an_answer")
    if body.startswith(_CHOICES) and not call.stream:
        return reply  # as nearly all answers to a chat begin, and no error does
    is_wanted_as_events = call.stream and call.operation in CHAT
    if not call.verbatim and not body.lstrip().startswith(b"{"):
        raise UpstreamError(f"{reply.deployment.host} answered with no chat completion", code="not_an_answer")
    if not is_wanted_as_events and not _is_error_alone(body):
        return reply
    refusal = read_refusal_in_200(reply.headers, body)
    if refusal is None:
        if is_wanted_as_events:
            raise no_events(reply)
        return reply
    return structs.replace(reply, status=refusal.status)


def no_events(reply: Reply) -> UpstreamError:
    """The error of a streamed call that was answered with something else."""
    message = f'{reply.deployment.host} answered a streamed call with "{media_type(reply.headers)}", not with events'
    return UpstreamError(message, code="not_an_answer")


def relayable(reply: Reply, call: Call, now: float) -> Reply:
    """The reply as a client of OpenAI's API gets it: an answer, or an error whose body has OpenAI's shape already.

    Raises:
        UpstreamError: it is an error of another shape, or asks for a wait that no client can live with.
    """
    body, status = reply.body, reply.status
    if not isinstance(body, bytes) or status < 300:
        return reply
    headers, wait = bounded(reply.headers, now)
    if wait is None and _is_in_shape(body):
        return structs.replace(reply, headers=headers)
    refusal = explained(read_refusal(status, headers, body), reply.deployment, call)
    if wait is not None and f"{wait:.0f}" not in refusal.message:
        refusal.message += f" It asks to wait {wait:.0f} seconds."
    try:
        raise refusal
    finally:
        del refusal  # its trace knows this frame


MAX_ERROR_BYTES = 64 * 1024  # what is larger is an answer, whatever it is called


class _Outline(msgspec.Struct):
    """What tells an error from an answer that happens to have a member called so."""

    error: Raw = Raw()
    choices: Raw = Raw()
    data: Raw = Raw()
    id: Raw = Raw()
    object: Raw = Raw()


def _is_error_alone(body: bytes) -> bool:
    if len(body) > MAX_ERROR_BYTES or body.find(b'"error"') < 0:
        return False
    try:
        outline = msgspec.json.decode(body, type=_Outline)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    answer = (outline.choices, outline.data, outline.id, outline.object)
    return bytes(outline.error) not in (b"", b"null") and not any(map(bytes, answer))


def _is_in_shape(body: bytes) -> bool:
    """Whether an error's body is OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""
    try:
        error = msgspec.json.decode(body).get("error")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, AttributeError):
        return False
    return isinstance(error, dict) and bool(error.get("message")) and {"type", "param", "code"} <= error.keys()


def hidden_refusal(reply: Reply, call: Call) -> UpstreamRefusal | None:
    """The error that a reply of status 200 holds in its place, explained; None if it holds none."""
    assert isinstance(reply.body, bytes)  # noqa: S101 - streams are judged by their events
    refusal = read_refusal_in_200(reply.headers, reply.body)
    return explained(refusal, reply.deployment, call) if refusal else None


def explained(refusal: UpstreamRefusal, deployment: Deployment, call: Call) -> UpstreamRefusal:
    """The refusal with a hint after Azure's message, where there is something to change."""
    hint = _hint(refusal, deployment, call)
    if hint:
        message = refusal.message.rstrip()
        refusal.message = f"{message}{'' if message.endswith(('.', '!', '?')) else '.'} Hint: {hint}."
    return refusal


def adaptation_for(refusal: UpstreamRefusal, call: Call) -> Adaptation | None:
    """How to send again a call whose parameter the model refused; None where nothing may be changed.

    Reasoning models know `max_tokens` as `max_completion_tokens`. Any other parameter is left out,
    if it is the environment's default; what the caller sent is theirs to change.
    """
    if refusal.status != 400 or refusal.code not in _UNSUPPORTED:
        return None
    named = _NAMED_PARAMETER.search(refusal.message)
    parameter = refusal.param or (named[1] if named else "")
    if parameter == "max_tokens" and refusal.code == "unsupported_parameter":
        if isinstance(call.body, bytes) and b'"max_completion_tokens"' in call.body:
            return None  # the caller sent both
        return Adaptation("max_tokens", "max_completion_tokens")
    return Adaptation(parameter, None) if parameter in call.defaulted else None


def _detail(body: bytes) -> dict[str, Any]:
    """The innermost object that describes the error; empty where there is none."""
    try:
        parsed = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return {}
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str) and error:
        return {"message": error}
    code = parsed.get("statusCode")
    return {**parsed, "code": code} if code is not None else parsed


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def _without_json(status: int, body: bytes) -> str:
    """A message for an error without one: the text of the page, cut short."""
    text = body[:4096].decode("utf-8", "replace")
    if "<" in text and ">" in text:
        text = re.sub(r"(?is)<(script|style).*?</\1>", " ", text)
        text = html.unescape(re.sub(r"<[^<>]*>", " ", text))
    text = " ".join(text.split())
    if not text:
        return f"The upstream answered {status} without saying why."
    cut = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    return f"The upstream answered {status}: {cut}"


def _status(detail: dict[str, Any]) -> int:
    for word in (detail.get("status"), detail.get("code"), detail.get("type")):
        text = str(word)
        if re.fullmatch("[45][0-9][0-9]", text):
            return int(text)
        if text in _STATUS_BY_WORD:
            return _STATUS_BY_WORD[text]
    return 502


def _hint(refusal: UpstreamRefusal, deployment: Deployment, call: Call) -> str | None:
    host, version = deployment.host, deployment.api_version
    source = "model" if call.model else "DEPLOYMENT_NAME"
    key = deployment.key_setting if deployment.key else "the key you presented"
    is_azure = deployment.kind == "azure"
    url = deployment.url_setting
    settings = f'{url} and API_VERSION, which is "{version}"' if is_azure else f"and {url}"
    path = f"{host} knows no such path or version; check the path, {settings}"
    if call.method != "POST" and call.operation in DEPLOYMENT_SCOPED:
        path = f"{call.operation} takes a POST"
    by_code = {
        "DeploymentNotFound": f'deployment "{deployment.name}" not found at host {host}; check {source}',
        "OperationNotSupported": f'the model behind deployment "{deployment.name}" cannot do that; check {source}',
        "AuthenticationTypeDisabled": f"{host} accepts no keys; allow key access on the resource",
        "PermissionDenied": "the identity lacks the role Cognitive Services OpenAI User on the resource",
    }
    by_status = {
        401: f"{host} does not accept {key}; check that it belongs to this resource",
        403: f"{host} does not admit this machine; check the resource's networking rules",
        404: path,
    }
    by_message = {
        "Unrecognized request argument": f'API_VERSION is "{version}"; a newer one may know the argument',
        "enabled only for api versions": f'API_VERSION is "{version}"; set the one it names',
        "api-version query parameter is not allowed": "set API_VERSION=v1",
    }
    for words, hint in by_message.items():
        if words in refusal.message:
            return hint
    return by_code.get(refusal.code or "") or by_status.get(refusal.status)
