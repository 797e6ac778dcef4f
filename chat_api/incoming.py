"""The request side of the relay: an ASGI request made into a call, with as much of its body read as decides its way."""

from urllib.parse import unquote

from starlette.types import Receive, Scope

from chat_api.callers import Caller
from chat_api.gateway import NOBODY_READS, Reads
from chat_api.headers import first
from chat_api.middleware import address_of
from chat_api.multipart import FieldFinder, boundary_of
from chat_api.operations import DEPLOYMENT_SCOPED, MODEL_REQUIRED, Target, is_unrouted
from chat_api.reading import check_coding, read_body
from chat_api.request_head import RequestHead
from chat_api.routing import Routing, form_model, read_routing
from chat_api.settings import Settings
from chat_api.spool import Form, Upload, declared_size, pieces_of
from chat_api.types import Body, Call, Headers

_NONE: frozenset[str] = frozenset()
MAX_NAMING_BYTES = 256 * 1024  # of JSON that is about things; what is larger is passed on as it comes
_OURS = ("api-version", "api-key")  # of a query: what the caller has no say in


async def read_call(
    scope: Scope,
    receive: Receive,
    head: RequestHead,
    target: Target,
    settings: Settings,
    *,
    route: str,
    caller: Caller | None = None,
    reads: Reads = NOBODY_READS,
) -> Call:
    """The call that a request makes.

    What says nothing of where it goes is passed on as it comes; a form is spooled, and JSON read whole.

    Raises:
        RequestError: the request cannot be served as it is.
        ClientGone: the client left before its body was complete.
    """
    body, (named, stream, choices, asks_usage, most_tokens) = await _read(scope, receive, head, target, settings)
    model = target.model or named
    takes_tokens = reads.answers and _takes_tokens(scope["method"], target.operation, model)
    facts = (target.operation, model, body, stream, head.credential, _NONE, scope["method"])
    return Call(  # not all of it by name: beyond fifteen names Python makes a dictionary of them
        *facts,
        query=_query(scope["query_string"]),
        headers=head.forwarded_as_json if body and isinstance(body, bytes) else head.forwarded,
        verbatim=True,
        model_in_body=named,
        choices=choices,
        route=route,
        request_id=scope.get("chat_api.request_id", ""),
        caller=caller,
        address=address_of(scope),
        wish=head.wish,
        is_metered=reads.usage and takes_tokens,
        is_read=takes_tokens,
        asks_usage=asks_usage,
        most_tokens=most_tokens,
    )


def _takes_tokens(method: str, operation: str, model: str | None) -> bool:
    """Whether a call has a model do something."""
    return method == "POST" and (model is not None or operation in MODEL_REQUIRED)


async def _read(
    scope: Scope, receive: Receive, head: RequestHead, target: Target, settings: Settings
) -> tuple[bytes | Body, Routing]:
    headers: Headers = scope["headers"]
    operation = target.operation
    is_form = head.media_type == "multipart/form-data"
    is_routed_form = is_form and operation in DEPLOYMENT_SCOPED
    passes = is_unrouted(scope["method"], operation) or operation.startswith("/")
    if passes or (is_form and not is_routed_form):
        if _names_things(scope["method"], head, headers):
            return await read_body(scope, receive, settings.max_body_bytes), Routing()
        return _upload(head, headers, receive, settings.max_upload_bytes), Routing()
    check_coding(head.coding)
    if is_routed_form:
        form = await _spooled(head, headers, receive, settings.max_upload_bytes)
        return form, Routing(model=form_model(form.model))
    body = await read_body(scope, receive, settings.max_body_bytes)
    return body, read_routing(body) if body.strip() or operation in DEPLOYMENT_SCOPED else Routing()


def _names_things(method: str, head: RequestHead, headers: Headers) -> bool:
    """Whether a body is held to see what it names, a batch's file say, as only one resource may know it."""
    is_json = head.media_type in ("application/json", "application/x-www-form-urlencoded")  # as curl calls it
    size = first(headers, b"content-length") or b""
    return method == "POST" and is_json and head.coding is None and size.isdigit() and int(size) <= MAX_NAMING_BYTES


def _upload(head: RequestHead, headers: Headers, receive: Receive, max_bytes: int) -> bytes | Upload:
    size = declared_size(headers, max_bytes, "MAX_UPLOAD_BYTES")
    if size == 0 or (size is None and not head.is_chunked):
        return b""
    return Upload(receive, size, max_bytes)


async def _spooled(head: RequestHead, headers: Headers, receive: Receive, max_bytes: int) -> Form:
    declared_size(headers, max_bytes, "MAX_UPLOAD_BYTES")
    form = Form(FieldFinder(boundary_of(head.content_type), b"model"))
    try:
        async for piece in pieces_of(receive, max_bytes, "MAX_UPLOAD_BYTES"):
            await form.write(piece)
    except BaseException:
        await form.aclose()
        raise
    return form


def _query(query: bytes) -> str:
    if not query:
        return ""
    parts = query.decode("latin-1").split("&")
    return "&".join(part for part in parts if unquote(part.partition("=")[0]).lower() not in _OURS)
