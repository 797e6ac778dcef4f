"""Requests into bytes: where a URL leads, and that nothing but what was meant ever gets into a head."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat_api.types import Body, Headers
from chat_api.wire.request import MAX_TARGET_CHARS, Origin, Unsendable, address, head
from tests.hops import Pieces


@pytest.mark.parametrize(
    ("url", "origin", "authority", "target"),
    [
        ("https://r.azure.com/openai/x", Origin(True, "r.azure.com", 443), "r.azure.com", b"/openai/x"),
        ("http://h", Origin(False, "h", 80), "h", b"/"),
        ("http://h/", Origin(False, "h", 80), "h", b"/"),
        ("http://h:8080/a", Origin(False, "h", 8080), "h:8080", b"/a"),
        ("https://h:443/a", Origin(True, "h", 443), "h:443", b"/a"),
        ("http://h:/a", Origin(False, "h", 80), "h:", b"/a"),
        ("https://h:80/a", Origin(True, "h", 80), "h:80", b"/a"),
        ("HTTPS://H.Example/A", Origin(True, "h.example", 443), "H.Example", b"/A"),
        ("http://127.0.0.1:1/", Origin(False, "127.0.0.1", 1), "127.0.0.1:1", b"/"),
        ("http://[::1]/", Origin(False, "::1", 80), "[::1]", b"/"),
        ("https://[2001:DB8::1]:8443/a", Origin(True, "2001:db8::1", 8443), "[2001:DB8::1]:8443", b"/a"),
        ("http://h/a?b=c&d=%20e", Origin(False, "h", 80), "h", b"/a?b=c&d=%20e"),
        ("http://h?b=c", Origin(False, "h", 80), "h", b"/?b=c"),
        ("http://h/a?b?c", Origin(False, "h", 80), "h", b"/a?b?c"),
        ("http://h/a?", Origin(False, "h", 80), "h", b"/a"),
        ("http://h/a?b#c", Origin(False, "h", 80), "h", b"/a?b"),
        ("http://h/a%2Fb//c/../d;e", Origin(False, "h", 80), "h", b"/a%2Fb//c/../d;e"),
        ("http://h//evil.example/", Origin(False, "h", 80), "h", b"//evil.example/"),
        ("http://h/@b:c", Origin(False, "h", 80), "h", b"/@b:c"),
    ],
)  # fmt: skip
def test_url_is_taken_apart(url: str, origin: Origin, authority: str, target: bytes) -> None:
    """Scheme, host and port say where to connect; path and query go out as they are; the host is named as it was."""
    found = address(url)

    assert (found.origin, found.authority, found.target) == (origin, authority, target)
    assert found.host == b"host: %s\r\n" % authority.encode()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="nothing"),
        pytest.param("h/a", id="no-scheme"),
        pytest.param("/a", id="path"),
        pytest.param("//h/a", id="scheme-relative"),
        pytest.param("ftp://h/", id="ftp"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("http:///a", id="no-host"),
        pytest.param("http://:80/", id="only-port"),
        pytest.param("http://user@h/", id="user"),
        pytest.param("http://user:canary@h/", id="password"),
        pytest.param("http://@h/", id="empty-user"),
        pytest.param("http://h\\@evil/", id="backslash-user"),
        pytest.param("http://h:99999/", id="port-too-high"),
        pytest.param("http://h:-1/", id="port-negative"),
        pytest.param("http://h:+80/", id="port-plus"),
        pytest.param("http://h:a/", id="port-letters"),
        pytest.param("http://h:\u0668/", id="port-other-digits"),
        pytest.param("http://[::1/", id="bracket"),
        pytest.param("http://[x]/", id="no-address"),
        pytest.param("http://h/a b", id="space"),
        pytest.param("http://h/a\r\nx: y", id="line-end"),
        pytest.param("http://h/a\nb", id="lf"),
        pytest.param("http://h/a\tb", id="tab"),
        pytest.param("http://h\r\n/a", id="line-end-in-host"),
        pytest.param("http://h/a\0", id="nul"),
        pytest.param(" http://h/", id="space-before"),
        pytest.param("http://h/ ", id="space-after"),
        pytest.param("http://h/\u00e9", id="latin"),
        pytest.param("http://b\u00fccher.example/", id="host-not-ascii"),
        pytest.param("http://h/?\u2028", id="unicode-line"),
        pytest.param("http://h/a\x7f", id="del"),
        pytest.param("http://h/" + "x" * MAX_TARGET_CHARS, id="too-long"),
        pytest.param("http://h/?" + "x" * MAX_TARGET_CHARS, id="query-too-long"),
    ],
)
def test_url_that_is_none_is_refused(url: str) -> None:
    """What is no http(s) URL, names a user, or holds a character that no URL has leads nowhere."""
    with pytest.raises(Unsendable) as caught:
        address(url)

    assert "canary" not in str(caught.value)


def test_longest_target_is_sent() -> None:
    """The bound counts the path and the query together."""
    assert len(address("http://h/" + "x" * (MAX_TARGET_CHARS - 1)).target) == MAX_TARGET_CHARS


@given(st.text(max_size=40), st.text(max_size=40))
@example("h", "a\r\nb").via("line end")
@example("h\r\nx: y", "")
@example("h", "\u2028")
def test_address_is_printable_ascii(host: str, rest: str) -> None:
    """Whatever the URL, what is made of it has no space, no line end and nothing beyond ASCII."""
    try:
        found = address(f"http://{host}/{rest}")
    except Unsendable:
        return
    for part in (
        found.target,
        found.authority.encode("ascii"),
        found.host.removeprefix(b"host: ").removesuffix(b"\r\n"),
    ):
        assert all(0x20 < byte < 0x7F for byte in part)
    assert found.origin.host


H = address("http://h:1/a?b")
START = b"POST /a?b HTTP/1.1\r\nhost: h:1\r\n"


@pytest.mark.parametrize(
    ("method", "body", "framing"),
    [
        ("POST", b"", b"content-length: 0\r\n"),
        ("POST", b"abc", b"content-length: 3\r\n"),
        ("PUT", b"", b"content-length: 0\r\n"),
        ("PATCH", b"", b"content-length: 0\r\n"),
        ("GET", b"", b""),
        ("HEAD", b"", b""),
        ("DELETE", b"", b""),
        ("OPTIONS", b"", b""),
        ("GET", b"abc", b"content-length: 3\r\n"),
        ("DELETE", b"abc", b"content-length: 3\r\n"),
        ("POST", Pieces(), b"transfer-encoding: chunked\r\n"),
        ("GET", Pieces(), b"transfer-encoding: chunked\r\n"),
        ("POST", Pieces(size=7), b"content-length: 7\r\n"),
        ("POST", Pieces(size=0), b"content-length: 0\r\n"),
    ],
)
def test_body_is_framed_by_the_wire(method: str, body: bytes | Body, framing: bytes) -> None:
    """A length where there is one, else chunks; where no body is expected, nothing is said of none."""
    expected = START.replace(b"POST", method.encode()) + b"api-key: k\r\n" + framing + b"\r\n"

    assert head(method, H, [(b"api-key", b"k")], body) == expected


@pytest.mark.parametrize("name", [b"content-length", b"transfer-encoding", b"host"])
@pytest.mark.parametrize("spelt", [bytes.lower, bytes.title, bytes.upper])
def test_framing_and_host_that_a_caller_brings_are_not_sent(name: bytes, spelt: Callable[[bytes], bytes]) -> None:
    """How a body is framed and whom it is for is the wire's own affair, whatever the headers say of it."""
    assert head("POST", H, ((spelt(name), b"99"), (b"a", b"b")), b"x") == START + b"a: b\r\ncontent-length: 1\r\n\r\n"


def test_headers_go_out_in_their_order() -> None:
    """Names, values and repetitions are kept as they are, blanks and bytes beyond ASCII too."""
    headers: Headers = ((b"b", b"1"), (b"a", b"\xe9 \t:"), (b"b", b""), (b"X-!#$%&'*+.^_`|~0", b"2"))

    assert head("POST", H, headers, b"") == (
        START + b"b: 1\r\na: \xe9 \t:\r\nb: \r\nX-!#$%&'*+.^_`|~0: 2\r\ncontent-length: 0\r\n\r\n"
    )


@pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\r\nb: c", b"a\0b", b"\r\n", b"a\r\n\r\nGET / HTTP/1.1", b"\n"])
def test_value_cannot_break_out_of_its_header(value: bytes) -> None:
    """CR, LF and NUL in a value are refused, and the words do not repeat it."""
    with pytest.raises(Unsendable, match="a header holds a line end or a NUL"):
        head("POST", H, ((b"api-key", value),), b"")


@pytest.mark.parametrize(
    "name", [b"", b"a b", b"a:", b":a", b"a\r", b"a\n", b"a\r\nb", b"a\0", b"a\xe9", b"a(b)", b" a", b"a\t"]
)
def test_name_that_is_no_token_is_refused(name: bytes) -> None:
    """A header's name is a token, and nothing that a line could be made of (RFC 9110 section 5.6.2)."""
    with pytest.raises(Unsendable, match="a header's name is none"):
        head("POST", H, ((name, b"x"),), b"")


@pytest.mark.parametrize(
    "method", ["", "P OST", "POST ", "POST\r\n", "G\nET", "G\0ET", "P\u00d6ST", "POST /x HTTP/1.1\r\nx:", "1", "A-B"]
)
def test_method_that_is_none_is_refused(method: str) -> None:
    """A method is letters."""
    with pytest.raises(Unsendable, match="the method is none"):
        head(method, H, (), b"")


@given(
    st.text(st.characters(max_codepoint=0x100), max_size=8) | st.sampled_from(["GET", "POST"]),
    st.lists(st.tuples(st.binary(max_size=6) | st.just(b"a"), st.binary(max_size=12)), max_size=5),
    st.binary(max_size=3),
)
@example("POST", [(b"a", b"b\r\n"), (b"a\r\n", b"")], b"")
@example("GET", [(b"transfer-encoding", b"\r\n")], b"")
def test_no_head_holds_a_line_that_was_not_meant(method: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Whatever comes in, what goes out has a line for each thing that was given and no other."""
    try:
        raw = head(method, H, headers, body)
    except Unsendable:
        return
    lines = raw.split(b"\r\n")
    own = [pair for pair in headers if pair[0].lower() not in (b"content-length", b"transfer-encoding", b"host")]
    assert lines[:2] == [b"%s /a?b HTTP/1.1" % method.encode(), b"host: h:1"]
    assert lines[2 : 2 + len(own)] == [b"%s: %s" % pair for pair in own]
    framing = [b"content-length: %d" % len(body)] if body or method not in ("GET", "HEAD", "DELETE", "OPTIONS") else []
    assert lines[2 + len(own) :] == [*framing, b"", b""]
    assert b"\0" not in raw
    assert raw.count(b"\r") == raw.count(b"\n") == len(lines) - 1
