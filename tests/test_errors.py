"""The exception tree: fixed status, type and code, and the two bodies in which an error leaves."""

from collections.abc import Iterator

import pytest

from chat_api import errors
from chat_api.errors import (
    GatewayError,
    RequestError,
    UpstreamRefusal,
    WrongMethod,
    default_type,
    openai_body,
    simple_body,
)

TREE: dict[str, tuple[int, str, str]] = {
    "GatewayError": (500, "server_error", "internal_error"),
    "RequestError": (400, "invalid_request_error", "invalid_value"),
    "UnknownPath": (404, "invalid_request_error", "unknown_path"),
    "WrongMethod": (405, "invalid_request_error", "method_not_allowed"),
    "BodyTooLarge": (413, "invalid_request_error", "body_too_large"),
    "UnsupportedMediaType": (415, "invalid_request_error", "unsupported_media_type"),
    "AuthError": (401, "authentication_error", "missing_credential"),
    "Forbidden": (403, "permission_error", "forbidden"),
    "ClientGone": (499, "client_error", "client_gone"),
    "NoUpstream": (503, "server_error", "no_upstream"),
    "UpstreamError": (502, "upstream_error", "upstream_error"),
    "UpstreamTimeout": (504, "upstream_error", "upstream_timeout"),
    "StreamBroken": (502, "upstream_error", "stream_broken"),
    "PoolTimeout": (503, "server_error", "pool_exhausted"),
    "RateLimited": (429, "rate_limit_error", "rate_limit_exceeded"),
    "StoreDown": (503, "server_error", "store_unavailable"),
    "Throttled": (429, "rate_limit_error", "rate_limit_exceeded"),
    "ConnectError": (502, "upstream_error", "upstream_unreachable"),
    "UpstreamClosed": (502, "upstream_error", "upstream_closed"),
    "NotHttp": (502, "upstream_error", "upstream_not_http"),
    "CutShort": (502, "upstream_error", "answer_cut_short"),
    "ConnectTimeout": (504, "upstream_error", "upstream_timeout"),
    "TlsTimeout": (504, "upstream_error", "upstream_timeout"),
    "WriteTimeout": (504, "upstream_error", "upstream_timeout"),
    "FirstByteTimeout": (504, "upstream_error", "upstream_timeout"),
    "IdleTimeout": (504, "upstream_error", "upstream_timeout"),
}
PARENTS = {
    "RequestError": "GatewayError",
    "UnknownPath": "RequestError",
    "WrongMethod": "RequestError",
    "BodyTooLarge": "RequestError",
    "UnsupportedMediaType": "RequestError",
    "AuthError": "GatewayError",
    "Forbidden": "GatewayError",
    "ClientGone": "GatewayError",
    "NoUpstream": "GatewayError",
    "UpstreamError": "GatewayError",
    "UpstreamRefusal": "UpstreamError",
    "UpstreamTimeout": "UpstreamError",
    "StreamBroken": "UpstreamError",
    "PoolTimeout": "NoUpstream",
    "RateLimited": "GatewayError",
    "StoreDown": "GatewayError",
    "Throttled": "NoUpstream",
    "ConnectError": "UpstreamError",
    "UpstreamClosed": "UpstreamError",
    "NotHttp": "UpstreamError",
    "CutShort": "UpstreamError",
    "ConnectTimeout": "UpstreamTimeout",
    "TlsTimeout": "UpstreamTimeout",
    "WriteTimeout": "UpstreamTimeout",
    "FirstByteTimeout": "UpstreamTimeout",
    "IdleTimeout": "UpstreamTimeout",
}


def tree(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    """The class and everything below it."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = {cls.__name__: cls for cls in tree(GatewayError) if cls.__module__ == errors.__name__}


def test_every_class_is_in_the_table() -> None:
    """No error class is without a contract here, and each hangs where the module's drawing shows it."""
    assert set(CLASSES) == {*TREE, "UpstreamRefusal"}
    assert {name: cls.__base__.__name__ for name, cls in CLASSES.items() if cls.__base__ and name in PARENTS} == PARENTS


@pytest.mark.parametrize("name", TREE)
def test_class_is_fixed(name: str) -> None:
    """Status, type and code belong to the class."""
    cls = CLASSES[name]
    assert (cls.status, cls.type, cls.code) == TREE[name]


@pytest.mark.parametrize("name", TREE)
def test_openai_body(name: str) -> None:
    """On the wire an error is OpenAI's object with exactly its four members, in its order."""
    _, type_, code = TREE[name]
    body = openai_body(CLASSES[name]("it broke", param="temperature"))
    assert body == {"error": {"message": "it broke", "type": type_, "param": "temperature", "code": code}}
    assert list(body["error"]) == ["message", "type", "param", "code"]


@pytest.mark.parametrize("name", TREE)
def test_simple_body(name: str) -> None:
    """The simple endpoint says `success` 0 and the message first, then OpenAI's object."""
    _, type_, code = TREE[name]
    body = simple_body(CLASSES[name]("it broke"))
    assert body == {
        "success": 0,
        "message": "it broke",
        "error": {"message": "it broke", "type": type_, "param": None, "code": code},
    }
    assert list(body) == ["success", "message", "error"]


def test_code_of_one_error_is_its_own() -> None:
    """A code given to one error changes that error only."""
    error = RequestError("it broke", code="missing_prompt")
    assert error.code == "missing_prompt"
    assert RequestError("it broke").code == "invalid_value"


def test_headers_are_kept() -> None:
    """An error carries the headers of its answer, and its text is its message."""
    error = WrongMethod("no", headers=[(b"allow", b"POST")])
    assert error.headers == ((b"allow", b"POST"),)
    assert RequestError("no").headers == ()
    assert str(error) == "no"


def test_refusal_keeps_the_upstreams_own_error() -> None:
    """An upstream's refusal leaves with the status, type, code, param and headers that it came with."""
    error = UpstreamRefusal(
        "too fast", status=429, type="requests", code="429", param="n", headers=((b"retry-after", b"7"),)
    )
    assert (error.status, error.headers) == (429, ((b"retry-after", b"7"),))
    assert openai_body(error) == {
        "error": {"message": "too fast", "type": "requests", "param": "n", "code": "429"},
    }
    assert simple_body(error) == {
        "success": 0,
        "message": "too fast",
        "error": {"message": "too fast", "type": "requests", "param": "n", "code": "429"},
    }


def test_refusal_without_a_code_has_none() -> None:
    """A refusal that gave no code does not get one of ours; its type follows from its status."""
    error = UpstreamRefusal("no", status=404, type=None, code=None)
    assert openai_body(error) == {
        "error": {"message": "no", "type": "not_found_error", "param": None, "code": None},
    }


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param({"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {}}}, id="filter"),
        pytest.param({}, id="empty"),
    ],
)
def test_refusal_keeps_innererror(inner: dict[str, object]) -> None:
    """Azure's innererror comes last in the error object, in both bodies, as Azure sent it."""
    error = UpstreamRefusal("no", status=400, type=None, code="content_filter", inner=inner)
    expected = {
        "message": "no",
        "type": "invalid_request_error",
        "param": None,
        "code": "content_filter",
        "innererror": inner,
    }
    assert openai_body(error) == {"error": expected}
    assert simple_body(error) == {"success": 0, "message": "no", "error": expected}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (408, "timeout_error"),
        (413, "invalid_request_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (499, "invalid_request_error"),
        (500, "server_error"),
        (503, "server_error"),
        (599, "server_error"),
    ],
)
def test_default_type(status: int, expected: str) -> None:
    """An error whose sender gave no type gets the one of its status."""
    assert default_type(status) == expected
