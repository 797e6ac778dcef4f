"""Chat chunks without what only Azure puts into them, for clients that know OpenAI's shape and no other. Pure.

Azure begins a stream with a chunk without choices, may put in chunks whose choices have no delta
(its asynchronous filter), and adds members of its own. A chunk that says why an answer ends, or what
it used, is never dropped.
"""

from collections.abc import Callable

import msgspec
from msgspec import Raw

from chat_api.sse import DONE, Event

_AZURES_OWN = ("obfuscation", "prompt_filter_results", "prompt_annotations", "content_filter_results")
_OF_CHOICE = ("content_filter_results", "content_filter_result", "content_filter_offsets", "content_filter_raw")
_NAMES = {"id": b'""', "object": b'"chat.completion.chunk"', "created": b"0", "model": b'""'}
_EMPTY = (b"", b"null", b'""', b"0")

_decode_chunk = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_choices = msgspec.json.Decoder(list[dict[str, Raw]]).decode


def strict_events(operation: str) -> Callable[[bytes, Event], bytes]:
    """A function that makes each event of a stream, given as its bytes and as read, into the bytes that go on."""
    names: dict[str, Raw] = {}
    says = "text" if operation == "completions" else "delta"
    if says == "text":
        names["object"] = Raw(b'"text_completion"')

    def strict(raw: bytes, event: Event) -> bytes:
        if event.data.strip() == DONE:
            return raw
        try:
            chunk = _decode_chunk(event.data)
            choices = _decode_choices(chunk.get("choices", Raw(b"[]")))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return raw
        kept = [_strict_choice(choice, says) for choice in choices if says in choice or _ends(choice)]
        if not kept and bytes(chunk.get("usage", Raw(b"null"))) == b"null":
            return b""
        for name in _AZURES_OWN:
            chunk.pop(name, None)
        for name, unknown in _NAMES.items():  # the filter's own chunks have them empty
            if bytes(chunk.get(name, Raw())) in _EMPTY:
                chunk[name] = names.get(name, Raw(unknown))
            else:
                names[name] = Raw(bytes(chunk[name]))
        chunk["choices"] = Raw(msgspec.json.encode(kept))
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    return strict


def _ends(choice: dict[str, Raw]) -> bool:
    return bytes(choice.get("finish_reason", Raw(b"null"))) != b"null"


def _strict_choice(choice: dict[str, Raw], says: str) -> dict[str, Raw]:
    strict = {name: value for name, value in choice.items() if name not in _OF_CHOICE}
    strict.setdefault(says, Raw(b"{}" if says == "delta" else b'""'))
    return strict
