"""The faults, by the deployment that has them. docs/emulator.md lists them; a test keeps the two alike."""

from dataclasses import dataclass
from typing import Any

from chat_api.emulator import answers
from chat_api.emulator import stream_faults as streams
from chat_api.emulator.answers import encode
from chat_api.emulator.error_bodies import (
    BAD_KEY,
    BAD_TOKEN,
    NO_DEPLOYMENT,
    PROMPT_FILTERED,
    SERVER_ERROR,
    front_end,
    rate_limit,
)
from chat_api.emulator.exchange import RETRY, Exchange
from chat_api.emulator.stream_faults import Play

FIRST_SECONDS = 1.5  # of silence before the error of `fault-delayed-error`


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to fail: what it does, in a sentence, and how it is played."""

    does: str
    play: Play


def _error(status: int, body: dict[str, Any]) -> Play:
    async def play(exchange: Exchange) -> None:
        await exchange.respond(status, encode(body))

    return play


def _page(status: int, body: bytes, content_type: str) -> Play:
    async def play(exchange: Exchange) -> None:
        await exchange.respond(status, body, content_type=content_type)

    return play


def _rate_limit(headers: dict[str, str], seconds: int = 1) -> Play:
    async def play(exchange: Exchange) -> None:
        body = rate_limit(exchange.operation, exchange.api_version, seconds)
        await exchange.respond(429, encode(body), headers=headers)

    return play


async def _delayed(exchange: Exchange) -> None:
    if not await exchange.gone(FIRST_SECONDS):
        await _rate_limit(RETRY)(exchange)


@streams.of_answer
async def _once(exchange: Exchange) -> None:
    if exchange.repeats:
        await exchange.ordinary()
    else:
        await exchange.respond(500, encode(SERVER_ERROR))


async def _redirect(exchange: Exchange) -> None:
    await exchange.respond(302, b"", headers={"location": "http://127.0.0.1:9/elsewhere"})


async def _garbage(exchange: Exchange) -> None:
    await exchange.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def _hang(exchange: Exchange) -> None:
    await exchange.gone()


@streams.of_answer
async def _unsupported_max_tokens(exchange: Exchange) -> None:
    if "max_tokens" in exchange.body:
        await exchange.respond(400, encode(answers.unsupported_max_tokens()))
    else:
        await exchange.ordinary()


@streams.of_answer
async def _unsupported_temperature(exchange: Exchange) -> None:
    if "temperature" in exchange.body:
        await exchange.respond(400, encode(answers.unsupported_temperature(exchange.body["temperature"])))
    else:
        await exchange.ordinary()


FAULTS: dict[str, Fault] = {
    "fault-400": Fault(
        "400: a message of the model's own", _error(400, answers.invalid("Invalid request (emulated)."))
    ),
    "fault-401": Fault("401: the key is wrong", _error(401, BAD_KEY)),
    "fault-401-token": Fault("401 in API Management's shape, without an `error` object", _error(401, BAD_TOKEN)),
    "fault-403": Fault(
        "403: the resource's firewall",
        _error(403, front_end("403", "Access denied due to Virtual Network/Firewall rules.")),
    ),
    "fault-404": Fault("404: no such deployment", _error(404, NO_DEPLOYMENT)),
    "fault-408": Fault("408: the model took too long", _error(408, front_end("Timeout", "The operation was timeout."))),
    "fault-409": Fault(
        "409: the resource is being changed", _error(409, front_end("Conflict", "Another operation runs."))
    ),
    "fault-413": Fault("413: the prompt is too long", _error(413, front_end("tokens_limit_reached", "Too large."))),
    "fault-422": Fault(
        "422: the body is well formed, but makes no sense", _error(422, front_end("422", "Cannot do that."))
    ),
    "fault-429": Fault("429 with `retry-after` and `retry-after-ms` of one second", _rate_limit(RETRY)),
    "fault-429-bare": Fault("429 without a retry header", _rate_limit({})),
    "fault-429-day": Fault("429 with a `retry-after` of a day", _rate_limit({"retry-after": "86400"}, 86400)),
    "fault-delayed-error": Fault("1.5 s of silence, then 429", _delayed),
    "fault-500": Fault("500: the model's own server error", _error(500, SERVER_ERROR)),
    "fault-500-once": Fault("500 the first time, an answer from then on", _once),
    "fault-503": Fault("503 with plain text", _page(503, b"no healthy upstream", "text/plain")),
    "fault-html": Fault(
        "502 with an HTML page",
        _page(502, b"<html><head><title>502 Bad Gateway</title></head><body></body></html>", "text/html"),
    ),
    "fault-empty": Fault("200 with an empty body", _page(200, b"", "application/json")),
    "fault-not-json": Fault("200 with an HTML page", _page(200, b"<html>Sign in</html>", "text/html")),
    "fault-redirect": Fault("302 to another host", _redirect),
    "fault-not-http": Fault("Something that is not HTTP", _garbage),
    "fault-closed": Fault("The connection closes without an answer", Exchange.cut),
    "fault-reset": Fault("The connection is reset without an answer", Exchange.reset),
    "fault-hang": Fault("No answer, ever", _hang),
    "fault-silent": Fault("The head of an answer, then silence", streams.silent),
    "fault-cut": Fault("Half of the answer, then the connection closes", streams.cut),
    "fault-truncated": Fault("The connection closes in the middle of an event", streams.truncated),
    "fault-stall": Fault("Half of the answer, then silence", streams.stall),
    "fault-no-done": Fault("A stream that ends in good order after half of the answer", streams.no_done),
    "fault-no-marker": Fault("Every choice finishes, but there is no `[DONE]`", streams.no_marker),
    "fault-spaced-done": Fault("A stream whose `[DONE]` has a space after it", streams.spaced_done),
    "fault-crlf": Fault("A stream with CRLF line ends, and comments", streams.crlf),
    "fault-split": Fault("A stream in pieces of a few bytes, cut within characters and line ends", streams.split),
    "fault-gzip": Fault("An answer coded with gzip, which nobody asked for", streams.gzipped),
    "fault-async-filter": Fault(
        "A stream with the asynchronous filter's chunks, which have no `delta`", streams.async_filter
    ),
    "fault-slow": Fault("A second before the answer; a stream with 0.1 s between events", streams.slow),
    "fault-endless": Fault("A stream that goes on until the caller leaves", streams.endless),
    "fault-no-last-newline": Fault("A stream whose `[DONE]` lacks its blank line", streams.no_last_newline),
    "fault-error-event": Fault("200, and the first event is an error", streams.error_event),
    "fault-error-only": Fault("200, and an error is the only event, without the prompt filter's", streams.error_only),
    "fault-late-error-event": Fault("Half of a stream, then an event that is an error", streams.late_error_event),
    "fault-filter": Fault("400: the content filter refuses the prompt", _error(400, PROMPT_FILTERED)),
    "fault-filter-answer": Fault("200, but the content filter stopped the answer", streams.filtered_answer),
    "fault-unsupported-max-tokens": Fault("400 for `max_tokens`, as reasoning models do", _unsupported_max_tokens),
    "fault-unsupported-temperature": Fault("400 for `temperature`, as reasoning models do", _unsupported_temperature),
}
