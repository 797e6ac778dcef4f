"""The request side of the simple endpoint: an ASGI request made into fields, whatever its content type."""

from starlette.types import Receive, Scope

from chat_api.bodies import merge, read_form, read_json
from chat_api.errors import RequestError, UnsupportedMediaType
from chat_api.fields import Given
from chat_api.headers import first, media_type
from chat_api.spool import declared_size, whole
from chat_api.types import Headers

ACCEPTED = "application/json, application/x-www-form-urlencoded or text/plain"
# Only charsets that decode in one pass: some of Python's others take quadratic time.
CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
}


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole request body.

    Raises:
        BodyTooLarge: it is larger than `max_bytes`, by its Content-Length or as it comes.
        ClientGone: the client left before it was complete.
    """
    declared_size(scope["headers"], max_bytes, "MAX_BODY_BYTES")
    return await whole(receive, max_bytes, "MAX_BODY_BYTES")


def read_fields(headers: Headers, body: bytes, query: bytes) -> Given:
    """The fields of a request: those of its body and those of its query string.

    A JSON object, a urlencoded form, or plain text that is the prompt. A form that starts with `{`
    is the JSON that curl's caller forgot to label; a body without a content type is read alike.

    Raises:
        RequestError: they cannot be read, or a field is given twice.
        UnsupportedMediaType: the content type or the charset is none of those.
    """
    check_coding(first(headers, b"content-encoding"))
    if not body and query:
        return read_form(_decoded(query, "utf-8"))
    kind = media_type(headers)
    body = body.removeprefix(b"\xef\xbb\xbf")  # PowerShell puts one in front of what it pipes
    starts_as_object = body.lstrip()[:1] == b"{"
    if kind in ("application/json", "text/json") or kind.endswith("+json"):
        fields: Given = read_json(body)
    elif kind == "application/x-www-form-urlencoded":
        fields = read_json(body) if starts_as_object else read_form(_decoded(body, "utf-8"))
    elif kind == "text/plain":
        fields = {"prompt": _decoded(body, _charset(headers))}
    elif not kind:
        fields = read_json(body) if starts_as_object else {"prompt": _decoded(body, "utf-8")}
    else:
        hint = " (with curl: -d, not -F)" if kind == "multipart/form-data" else ""
        raise UnsupportedMediaType(f'content type "{kind}" is not read here; send {ACCEPTED}{hint}')
    return merge(fields, read_form(_decoded(query, "utf-8"))) if query else fields


def check_coding(coding: bytes | None) -> None:
    """Whether a body of this Content-Encoding can be read as it is.

    Raises:
        UnsupportedMediaType: it is compressed.
    """
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMediaType(f'content-encoding "{coding.decode("latin-1")}" is not read here; send none')


def _charset(headers: Headers) -> str:
    parameters = (first(headers, b"content-type") or b"").decode("latin-1").split(";")[1:]
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
            if charset not in CHARSETS:
                raise UnsupportedMediaType(f'charset "{charset}" is not read here; send utf-8')
            return CHARSETS[charset]
    return "utf-8"


def _decoded(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset)
    except UnicodeDecodeError as error:
        message = f"the body is not {charset} (byte {error.start}); send it as utf-8, or name its charset"
        raise RequestError(message, code="invalid_text") from None
