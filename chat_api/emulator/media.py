"""Emulated images and sound: a picture of one dot, noise for speech, and texts that tell what file arrived. Pure."""

import base64
import hashlib
import struct
import zlib
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from chat_api.emulator.answers import CREATED, encode, pieces_of

SPEECH_BYTES = 100_000
_SECONDS = 1.0


class ImageBody(msgspec.Struct):
    """The types of the parameters that shape an image."""

    prompt: Annotated[str, Meta(min_length=1)]
    n: Annotated[int, Meta(ge=1, le=10)] | None = None


class EditBody(ImageBody, kw_only=True):
    """The types of the parameters that shape an edited image; `image[]` stands for `image`."""

    image: Any


class SpeechBody(msgspec.Struct):
    """The types of the parameters that shape speech."""

    input: Annotated[str, Meta(min_length=1)]
    voice: Any


class _File(msgspec.Struct):
    filename: str


class HeardBody(msgspec.Struct):
    """The types of the parameters that shape a transcription."""

    file: _File


def images(body: dict[str, Any]) -> dict[str, Any]:
    """The `data` of an image, or of an edited one, whose revised prompt then tells of the files."""
    given = body.get("image", body.get("image[]"))
    files = [told(file) for file in (given if isinstance(given, list) else [given]) if isinstance(file, dict)]
    image = {
        "b64_json": base64.b64encode(_png(b"\x00\x78\xd4")).decode(),
        "revised_prompt": ", ".join([body["prompt"], *files]),
    }
    spent = len(pieces_of(body["prompt"]))
    return {
        "created": CREATED,
        "data": [image] * int(body.get("n") or 1),
        "output_format": "png",
        "usage": {
            "input_tokens": spent,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": spent},
            "output_tokens": 1,
            "total_tokens": spent + 1,
        },
    }


def speech(body: dict[str, Any]) -> bytes:
    """Sound, or what could be: bytes that only their length and the request decide."""
    return hashlib.shake_256(encode(body)).digest(SPEECH_BYTES)


def heard(body: dict[str, Any], task: str) -> tuple[bytes, str]:
    """What is heard in a file, which is what the file is; as JSON, or as text where that was asked for."""
    text = told(body["file"])
    kind = body.get("response_format")
    if kind == "verbose_json":
        answer = {"duration": _SECONDS, "language": "english", "segments": [], "task": task, "text": text}
        return encode(answer), "application/json"
    texts = {
        "text": f"{text}\n",
        "srt": f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n",
        "vtt": f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n\n",
    }
    if kind in texts:
        return texts[kind].encode(), "text/plain; charset=utf-8"
    return encode({"text": text}), "application/json"


def told(file: Any) -> str:
    """A file's name, size and the start of its digest, as a text."""
    return f"{file['filename']}: {file['bytes']} bytes, sha256 {file['sha256'][:16]}"


def _png(colour: bytes) -> bytes:
    """A picture of one dot (RGB, 8 bits each)."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\x00" + colour)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, content) for name, content in parts)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
