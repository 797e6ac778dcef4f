"""A request's fields as they stand in its body and its query string: a JSON object or a urlencoded form. Pure."""

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw

from chat_api.errors import RequestError
from chat_api.fields import Given, cut, kind_of, quoted

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def read_json(body: bytes) -> dict[str, Raw]:
    """The fields of a JSON body, each still as it was written.

    Raises:
        RequestError: the body is not a JSON object in UTF-8.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    if not body.strip():
        raise RequestError("the body is empty; it takes a JSON object with a prompt", code="empty_body")
    try:
        body.decode()
        return _decode_fields(body)
    except msgspec.ValidationError:
        kind = kind_of(Raw(body))
        raise RequestError(f"the body is {kind}; it takes a JSON object with a prompt", code="invalid_json") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 (byte {error.start}); it takes a JSON object in UTF-8"
        raise RequestError(message, code="invalid_json") from None
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise RequestError(f"the body is not JSON: {reason}{_json_hint(body)}", code="invalid_json") from None


def _json_hint(body: bytes) -> str:
    """What a person may have done to get such a body, if it shows."""
    if body.startswith(b"'"):
        return '; your shell passed its quotes on: try -d "{\\"prompt\\": \\"…\\"}"'
    if re.match(rb"\{\s*'", body):
        return "; JSON takes double quotes"
    if re.match(rb"\w+=", body):
        return "; this looks like a form: leave the content type out"
    if re.search(rb"\\u[dD][89a-bA-B]", body):
        return "; it may hold half of a surrogate pair"
    return ""


def read_form(text: str) -> dict[str, Raw | str | Sequence[str]]:
    """The fields of a urlencoded form or a query string; `stop` may come several times.

    Raises:
        RequestError: another field comes twice, or there are too many.
    """
    if text and "=" not in text:
        message = "the form has no field; send prompt=…, or plain text with -H 'content-type: text/plain'"
        raise RequestError(message, code="invalid_form")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=200, errors="strict")
    except UnicodeDecodeError:
        raise RequestError("the form is not UTF-8", code="invalid_form") from None
    except ValueError:
        raise RequestError(
            "the form has more than 200 fields; text that holds & takes --data-urlencode", code="invalid_form"
        ) from None
    fields: dict[str, Raw | str | Sequence[str]] = {}
    for name, value in pairs:
        if name not in fields:
            fields[name] = value
        elif name == "stop":
            earlier = fields[name]
            fields[name] = [*([earlier] if isinstance(earlier, str) else earlier), value]
        else:
            raise RequestError(f"field {quoted(name)} is given twice", param=cut(name))
    return fields


def merge(body: Given, query: Given) -> dict[str, Raw | str | Sequence[str]]:
    """The fields of a body and of its query string together.

    Raises:
        RequestError: both hold the same field.
    """
    for name in query:
        if name in body:
            message = f"field {quoted(name)} is given twice: in the body and in the query string"
            raise RequestError(message, param=cut(name))
    return {**body, **query}
