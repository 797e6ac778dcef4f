"""What the emulated model makes of a legacy completion: one choice for each prompt, `n` times. Pure."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from chat_api.emulator.answers import CREATED, SAFE, digest_of, limited, pieces_of


class Body(msgspec.Struct):
    """The types of the parameters that shape the answer."""

    prompt: str | list[Any] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[Annotated[str, Meta(min_length=1)]] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


class Completion:
    """The answer to one legacy completion."""

    def __init__(self, body: dict[str, Any], deployment: str) -> None:
        self._body = body
        self._common = {
            "created": CREATED,
            "id": f"cmpl-{digest_of(body, deployment)[:29]}",
            "model": f"{deployment}-emulated",
            "object": "text_completion",
        }
        self._prompts = texts(body.get("prompt", ""))
        self._choices = [
            limited(f'You said: "{prompt}".', body) for prompt in self._prompts for _ in range(body.get("n") or 1)
        ]

    def whole(self) -> dict[str, Any]:
        """The `text_completion` object."""
        choices = [_choice(index, "".join(said), reason) for index, (said, reason) in enumerate(self._choices)]
        return {**self._common, "choices": choices, "prompt_filter_results": self._filters, "usage": self._usage()}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """The same object in chunks: prompt filter, texts, finish, usage if asked for."""
        wants_usage = bool((self._body.get("stream_options") or {}).get("include_usage"))
        usage = {"usage": None} if wants_usage else {}
        yield {**self._common, "choices": [], "prompt_filter_results": self._filters, **usage}
        for index, (said, reason) in enumerate(self._choices):
            for piece in said:
                yield {**self._common, "choices": [_choice(index, piece, None)], **usage}
            yield {**self._common, "choices": [_choice(index, "", reason)], **usage}
        if wants_usage:
            yield {**self._common, "choices": [], "usage": self._usage()}

    @property
    def _filters(self) -> list[dict[str, Any]]:
        return [{"content_filter_results": SAFE, "prompt_index": index} for index in range(len(self._prompts))]

    def _usage(self) -> dict[str, Any]:
        prompt = sum(len(pieces_of(text)) for text in self._prompts)
        completion = sum(len(said) for said, _ in self._choices)
        return {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": prompt + completion}


def texts(given: Any) -> list[str]:
    """The texts in what a prompt or an input is: a text, texts, tokens, or lists of tokens."""
    if not isinstance(given, list):
        return [str(given or "")]
    if given and all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]
    return [" ".join(map(str, item)) if isinstance(item, list) else str(item) for item in given]


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {
        "content_filter_results": SAFE,
        "finish_reason": finish_reason,
        "index": index,
        "logprobs": None,
        "text": text,
    }
