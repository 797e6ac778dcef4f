"""What is called how in Redis: `chat-api:{alice}:limits`. All of a subject has one hash tag, and so one slot. Pure."""

_ESCAPED = {"%": "%25", "{": "%7B", "}": "%7D"}
_TABLE = str.maketrans(_ESCAPED)


def tagged(name: str, kind: str) -> bytes:
    """A key whose slot is the name's alone, whatever is in the name."""
    tag = name.translate(_TABLE) or "%"  # an empty tag would be none
    return f"chat-api:{{{tag}}}:{kind}".encode(errors="backslashreplace")


def untagged(key: bytes) -> tuple[str, str]:
    """The name and the kind again."""
    tag, _, kind = key.decode().removeprefix("chat-api:{").partition("}:")
    name = tag if tag != "%" else ""
    for plain, escaped in reversed(_ESCAPED.items()):
        name = name.replace(escaped, plain)
    return name, kind
