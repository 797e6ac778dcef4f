"""Files within JSON are told by their size, and nothing else is touched."""

import json
from typing import Any

import pytest

from chat_api.shortening import short_text, shortened

LONG = "iVBORw0KGgo+/" * 300  # 3,900 characters
URL = f"data:image/png;base64,{LONG}"
SHORT = "data:image/png;base64,… (3900 characters)"
PADDING = {"padding": "x y " * 600}  # so that it is looked at


def short(value: Any, *, slashed: bool = False) -> Any:
    """JSON terms as they are after shortening; with slashes as PHP writes them."""
    body = json.dumps({"value": value, **PADDING}, ensure_ascii=False)
    return json.loads(shortened((body.replace("/", "\\/") if slashed else body).encode()).decode())["value"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"url": URL}, {"url": SHORT}, id="image"),
        pytest.param([URL, "a", URL], [SHORT, "a", SHORT], id="two"),
        pytest.param(f"see ![x]({URL}) and {URL} there", f"see ![x]({SHORT}) and {SHORT} there", id="in-a-text"),
        pytest.param(f'{{"u": "{URL}"}}', f'{{"u": "{SHORT}"}}', id="in-json-in-a-text"),
        pytest.param(f"{URL}\nmore", f"{SHORT}\nmore", id="before-a-line"),
        pytest.param({"data": LONG}, {"data": "… (3900 characters)"}, id="sound"),
        pytest.param({"b64_json": LONG, "a": 1}, {"b64_json": "… (3900 characters)", "a": 1}, id="picture"),
        pytest.param({"data": [LONG], "file_data": None}, {"data": [LONG], "file_data": None}, id="no-text"),
        pytest.param({"data": "word " * 900}, {"data": "word " * 900}, id="words"),
        pytest.param("data:image/png;base64,iVBORw0K", "data:image/png;base64,iVBORw0K", id="short"),
        pytest.param(";base64," + "字" * 2000, ";base64," + "字" * 2000, id="no-base64"),
    ],
)
def test_files_are_told_by_their_size(value: Any, expected: Any) -> None:
    """Base64 of some length is, in data URLs and in members that are files; words never are."""
    assert short(value) == expected


def test_slashes_with_a_backslash_are_base64() -> None:
    """A data URL ends at its end where slashes are escaped, and what stays is JSON."""
    assert short([URL, "a/b"], slashed=True) == [f"data:image/png;base64,… ({3900 + 300} characters)", "a/b"]


def test_what_is_small_or_broken_stays_as_it_is() -> None:
    """Less than two kilobytes are not looked at; without a quote at its end nothing is cut."""
    assert shortened(b'{"data":"%s"}' % (b"A" * 1500)) == b'{"data":"%s"}' % (b"A" * 1500)
    cut = b'{"url":"data:image/png;base64,' + b"A" * 5000
    assert shortened(cut) == cut
    assert shortened(b'{"data"' + b" " * 5000) == b'{"data"' + b" " * 5000


def test_texts_that_are_files() -> None:
    """A text is one as a whole, or not at all."""
    assert short_text(LONG) == "… (3900 characters)"
    assert short_text(LONG[:500]) == LONG[:500]
    assert short_text("a " * 2000) == "a " * 2000
    assert short_text("é" * 2000) == "é" * 2000
