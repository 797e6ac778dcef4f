"""Emulated embeddings: a vector of length 1 for each text, cut from its digest. Pure."""

import base64
import hashlib
import math
import struct
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat_api.emulator.answers import pieces_of
from chat_api.emulator.completions import texts

DIMENSIONS = 8


class Body(msgspec.Struct):
    """The types of the parameters that shape the answer."""

    input: str | Annotated[list[Any], Meta(min_length=1, max_length=2048)]
    dimensions: Annotated[int, Meta(ge=1, le=3072)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


def embeddings(body: dict[str, Any], deployment: str) -> dict[str, Any]:
    """The list of embeddings: numbers, or the base64 of them as little-endian float32."""
    given = texts(body["input"])
    packed = [_packed(text, body.get("dimensions") or DIMENSIONS) for text in given]
    is_coded = body.get("encoding_format") == "base64"
    tokens = sum(len(pieces_of(text)) for text in given)
    return {
        "data": [
            {
                "embedding": base64.b64encode(vector).decode() if is_coded else _numbers(vector),
                "index": index,
                "object": "embedding",
            }
            for index, vector in enumerate(packed)
        ],
        "model": f"{deployment}-emulated",
        "object": "list",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _packed(text: str, dimensions: int) -> bytes:
    raw = [byte - 127.5 for byte in hashlib.shake_256(text.encode("utf-8", "replace")).digest(dimensions)]
    length = math.sqrt(sum(number * number for number in raw))
    return struct.pack(f"<{dimensions}f", *(number / length for number in raw))


def _numbers(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))
