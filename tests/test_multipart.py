"""One field of a form that comes in pieces: where its value stands, to the byte, and what looks like it but is not."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_api.errors import RequestError
from chat_api.multipart import MAX_PART_HEAD_BYTES, MAX_VALUE_BYTES, FieldFinder, boundary_of

FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'
END = b"--b--\r\n"


def field(value: bytes = b"whisper", head: bytes = b'Content-Disposition: form-data; name="model"') -> bytes:
    """A part with that head and value."""
    return b"--b\r\n" + head + b"\r\n\r\n" + value + b"\r\n"


def found(*pieces: bytes, boundary: bytes = b"b") -> tuple[bytes | None, tuple[int, int] | None]:
    """The value and the span of the field `model` in a form that came in these pieces."""
    finder = FieldFinder(boundary, b"model")
    for piece in pieces:
        finder.feed(piece)
    return finder.value, finder.span


FORMS = [
    pytest.param(field() + END, b"whisper", id="alone"),
    pytest.param(field() + FILE + b"\x00\xff\r\n" + END, b"whisper", id="before-a-file"),
    pytest.param(FILE + b"\x00\xff\r\n" + field() + END, b"whisper", id="after-a-file"),
    pytest.param(FILE + b"\r\n" + field() + END, b"whisper", id="after-an-empty-file"),
    pytest.param(field(b"0.5", b'Content-Disposition: form-data; name="t"') + field() + END, b"whisper", id="second"),
    pytest.param(field(b"") + END, b"", id="empty"),
    pytest.param(field(b"\r\n") + END, b"\r\n", id="line-end"),
    pytest.param(field(b"-") + END, b"-", id="hyphen"),
    pytest.param(field(b"a\r\n-b") + END, b"a\r\n-b", id="nearly-a-boundary"),
    pytest.param(field("ü ".encode()) + END, "ü ".encode(), id="as-it-came"),
    pytest.param(field(b"first") + field(b"second") + END, b"first", id="the-first-of-two"),
    pytest.param(field(head=b"content-disposition:form-data;name=model") + END, b"whisper", id="name-without-quotes"),
    pytest.param(field(head=b'CONTENT-DISPOSITION: Form-Data; NAME="model"') + END, b"whisper", id="upper-case"),
    pytest.param(
        field(head=b'Content-Disposition: form-data; x="1" ;  name="model"') + END, b"whisper", id="later-parameter"
    ),
    pytest.param(
        field(head=b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"\r\nX-Y: z') + END,
        b"whisper",
        id="among-other-headers",
    ),
    pytest.param(b"preamble\r\n" + field() + END, b"whisper", id="preamble"),
    pytest.param(field().replace(b"--b\r\n", b"--b \t\r\n") + END, b"whisper", id="padding"),
    pytest.param(b"--b\r\n\r\nno head\r\n" + field() + END, b"whisper", id="after-a-part-without-a-head"),
    pytest.param(
        FILE + b'--b\r\nContent-Disposition: form-data; name="model"\n\nx--b\r\r\n' + field() + END,
        b"whisper",
        id="boundary-within-a-line",
    ),
    pytest.param(FILE + b"\r\n-b\r\n--\r\n--B\r\n\n--b\n\r--b\r\n" + field() + END, b"whisper", id="lookalikes"),
    pytest.param(FILE + b"\r\n" * 50 + b"\r\n" + field() + END, b"whisper", id="line-ends"),
    pytest.param(field()[:-2] + b"\r\n--b", b"whisper", id="next-boundary-is-enough"),
    pytest.param(END, None, id="no-part"),
    pytest.param(b"", None, id="nothing"),
    pytest.param(FILE + b"x\r\n" + END, None, id="only-a-file"),
    pytest.param(FILE + b"x\r\n" + END + field(), None, id="after-the-end"),
    pytest.param(field(head=b'Content-Disposition: form-data; name="models"') + END, None, id="longer-name"),
    pytest.param(field(head=b'Content-Disposition: form-data; name="Model"') + END, None, id="names-are-exact"),
    pytest.param(field(head=b'Content-Disposition: form-data; filename="model"') + END, None, id="file-name"),
    pytest.param(field(head=b'Content-Disposition: form-data; name="x"; filename="; name=model"'), None, id="trick"),
    pytest.param(field(head=b'X-Content-Disposition: form-data; name="model"') + END, None, id="another-header"),
    pytest.param(field()[:-2], None, id="cut-within-the-value"),
    pytest.param(field()[:30], None, id="cut-within-the-head"),
]


def check(form: bytes, value: bytes | None, *pieces: bytes) -> None:
    """That the field has that value in the form, and stands where its span says."""
    found_value, span = found(*pieces)
    assert found_value == value
    if value is None:
        assert span is None
    else:
        assert span is not None
        assert form[slice(*span)] == value
        assert form[: span[0]].endswith(b"\r\n\r\n")
        assert form[span[1] :].startswith(b"\r\n--b")


@pytest.mark.parametrize(("form", "value"), FORMS)
def test_whole(form: bytes, value: bytes | None) -> None:
    """The field's value and its exact place are found in a form that comes at once."""
    check(form, value, form)


@pytest.mark.parametrize(("form", "value"), FORMS)
def test_split_everywhere(form: bytes, value: bytes | None) -> None:
    """Wherever a form is split, at any byte, the same is found."""
    for index in range(len(form) + 1):
        check(form, value, form[:index], b"", form[index:])


@pytest.mark.parametrize(("form", "value"), FORMS)
def test_byte_by_byte(form: bytes, value: bytes | None) -> None:
    """A form that comes one byte at a time gives the same."""
    check(form, value, *[form[index : index + 1] for index in range(len(form))])


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=60) | st.lists(st.sampled_from([b"\r", b"\n", b"-", b"b", b"--", b"\r\n--"])).map(b"".join),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_any_file(content: bytes, cuts: list[int]) -> None:
    """Whatever a file before the field holds, but for the boundary itself, the field is found behind it."""
    content = content.replace(b"\r\n--b", b"")
    if b"\r\n--b" in content or content.startswith(b"--b"):
        return  # a client takes another boundary
    form = FILE + content + b"\r\n" + field() + END
    edges = [0, *sorted(min(cut, len(form)) for cut in cuts), len(form)]
    check(form, b"whisper", *[form[start:end] for start, end in pairwise(edges)])


@pytest.mark.parametrize("size", [1, 100, 1_000_000])
def test_long_file_is_not_kept(size: int) -> None:
    """A file goes by without being kept: only as much as a boundary may be split by is."""
    finder = FieldFinder(b"b", b"model")
    finder.feed(FILE)
    for _ in range(3):
        finder.feed(b"\r" * size)
        assert len(finder._window) <= len(b"\r\n--b")


def test_longest_value() -> None:
    """A value may be as long as the limit, in one piece or many."""
    form = field(b"m" * MAX_VALUE_BYTES) + END
    assert found(form)[0] == b"m" * MAX_VALUE_BYTES
    assert found(*[form[index : index + 1] for index in range(len(form))])[0] == b"m" * MAX_VALUE_BYTES


def test_long_value_that_comes_slowly() -> None:
    """A value without end is refused as the model."""
    form = field(b"m" * (MAX_VALUE_BYTES + 100)) + END
    with pytest.raises(RequestError, match="too long") as caught:
        found(*[form[start : start + 50] for start in range(0, len(form), 50)])
    assert caught.value.param == "model"


def test_long_head_that_comes_slowly() -> None:
    """A part's head without end is refused."""
    pieces = [b"--b\r\n", *[b"x-y: z\r\n" * 100] * (MAX_PART_HEAD_BYTES // 800 + 1)]
    with pytest.raises(RequestError, match="head of a part") as caught:
        found(*pieces)
    assert caught.value.code == "invalid_form"


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(field(b"m" * (MAX_VALUE_BYTES + 100)) + END, id="value"),
        pytest.param(field(head=b"x-y: z\r\n" * 5000 + b'Content-Disposition: form-data; name="model"'), id="head"),
    ],
)
def test_limits_of_what_comes_at_once(form: bytes) -> None:
    """What is too long is refused in one piece as it is in many."""
    with pytest.raises(RequestError):
        found(form)


def test_file_name_before_the_name() -> None:
    """A file's name is not searched for parameters, wherever it stands."""
    head = b'Content-Disposition: form-data; filename="a; name=model"; name="file"'
    assert found(field(b"content", head) + END) == (None, None)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        pytest.param(b"multipart/form-data; boundary=abc", b"abc", id="plain"),
        pytest.param(b'multipart/form-data; boundary="a b:c"', b"a b:c", id="quoted"),
        pytest.param(b"multipart/form-data;charset=utf-8;Boundary=abc; x=y", b"abc", id="among-others"),
        pytest.param(
            b"multipart/form-data; boundary=----WebKitFormBoundary7MA4", b"----WebKitFormBoundary7MA4", id="web"
        ),
        pytest.param(b"multipart/form-data; boundary=" + b"b" * 70, b"b" * 70, id="longest"),
        pytest.param(b"multipart/form-data; boundary='()+_,-./:=?", b"'()+_,-./:=?", id="every-character"),
    ],
)
def test_boundary(content_type: bytes, boundary: bytes) -> None:
    """The boundary is read from the content type, with quotes or without."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type", [b"", b"multipart/form-data", b"multipart/form-data; boundary=", b'a; boundary=""']
)
def test_no_boundary(content_type: bytes) -> None:
    """A form without a boundary is the caller's fault."""
    with pytest.raises(RequestError) as caught:
        boundary_of(content_type)
    assert caught.value.code == "invalid_form"
