"""The faults, by the deployment that has them. docs/emulator.md lists them; a test keeps the two alike."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from chat_api.emulator import answers
from chat_api.emulator.answers import encode
from chat_api.emulator.exchange import RETRY, Exchange

SLOW_SECONDS = 0.1  # between the events of `fault-slow` and `fault-endless`

Play = Callable[[Exchange], Awaitable[None]]


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


def _front_end(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _rate_limit(headers: dict[str, str]) -> Play:
    async def play(exchange: Exchange) -> None:
        message = (
            f"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version {exchange.api_version} "
            "have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 1 second."
        )
        await exchange.respond(429, encode(_front_end("429", message)), headers=headers)

    return play


async def _once(exchange: Exchange) -> None:
    if exchange.repeats:
        await exchange.ordinary()
    else:
        await exchange.respond(500, encode(_SERVER_ERROR))


async def _redirect(exchange: Exchange) -> None:
    await exchange.respond(302, b"", headers={"location": "http://127.0.0.1:9/elsewhere"})


async def _garbage(exchange: Exchange) -> None:
    await exchange.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def _hang(exchange: Exchange) -> None:
    await exchange.gone()


async def _silent(exchange: Exchange) -> None:
    if exchange.streams:
        await exchange.start()
    else:
        await exchange.respond(200, b"", length=1000)
    await exchange.gone()


async def _half(exchange: Exchange) -> None:
    """Send half of the answer, ready for whatever comes next."""
    if exchange.streams:
        await exchange.start()
        events = exchange.events()
        for event in events[: len(events) // 2]:
            await exchange.write(event)
    else:
        body = encode(exchange.answer.whole())
        await exchange.respond(200, body[: len(body) // 2], length=len(body))


async def _cut(exchange: Exchange) -> None:
    await _half(exchange)
    await exchange.cut()


async def _stall(exchange: Exchange) -> None:
    await _half(exchange)
    await exchange.gone()


async def _no_done(exchange: Exchange) -> None:
    if not exchange.streams:
        await exchange.ordinary()
        return
    await _half(exchange)
    await exchange.finish()


async def _slow(exchange: Exchange) -> None:
    if not exchange.streams:
        if not await exchange.gone(1.0):
            await exchange.ordinary()
        return
    await exchange.start()
    for event in [*exchange.events(), b"data: [DONE]\n\n"]:
        await exchange.write(event)
        if await exchange.gone(SLOW_SECONDS):
            return
    await exchange.finish()


async def _endless(exchange: Exchange) -> None:
    if not exchange.streams:
        await exchange.ordinary()
        return
    await exchange.start()
    event = exchange.events()[2]
    await exchange.write(exchange.events()[0])
    while not await exchange.gone(SLOW_SECONDS):
        await exchange.write(event)


async def _no_last_newline(exchange: Exchange) -> None:
    if not exchange.streams:
        await exchange.ordinary()
        return
    await exchange.start()
    for event in exchange.events():
        await exchange.write(event)
    await exchange.write(b"data: [DONE]")
    await exchange.finish()


async def _error_event(exchange: Exchange) -> None:
    if not exchange.streams:
        await exchange.respond(200, encode(_EVENT_ERROR))
        return
    await exchange.start()
    await exchange.write(exchange.events()[0])
    await exchange.write(b"data: " + encode(_EVENT_ERROR) + b"\n\n")
    await exchange.finish()


async def _late_error_event(exchange: Exchange) -> None:
    if not exchange.streams:
        await exchange.respond(200, encode(_EVENT_ERROR))
        return
    await _half(exchange)
    await exchange.write(b"data: " + encode(_EVENT_ERROR) + b"\n\n")
    await exchange.finish()


async def _filtered_answer(exchange: Exchange) -> None:
    """The content filter stops the answer: 200, an empty text and its finish reason."""
    if not exchange.streams:
        whole = exchange.answer.whole()
        whole["choices"][0] |= {"finish_reason": "content_filter", "content_filter_results": _VIOLENT}
        whole["choices"][0]["message"]["content"] = ""
        await exchange.respond(200, encode(whole))
        return
    chunks = list(exchange.answer.chunks())
    chunks[-1]["choices"][0] |= {"finish_reason": "content_filter", "content_filter_results": _VIOLENT}
    await exchange.start()
    for chunk in (*chunks[:2], chunks[-1]):
        await exchange.write(b"data: " + encode(chunk) + b"\n\n")
    await exchange.write(b"data: [DONE]\n\n")
    await exchange.finish()


async def _unsupported_max_tokens(exchange: Exchange) -> None:
    if "max_tokens" in exchange.body:
        await exchange.respond(400, encode(answers.unsupported_max_tokens()))
    else:
        await exchange.ordinary()


async def _unsupported_temperature(exchange: Exchange) -> None:
    if "temperature" in exchange.body:
        await exchange.respond(400, encode(answers.unsupported_temperature(exchange.body["temperature"])))
    else:
        await exchange.ordinary()


_SERVER_ERROR = {
    "error": {
        "message": "The server had an error while processing your request. Sorry about that!",
        "type": "server_error",
        "param": None,
        "code": None,
    }
}
_EVENT_ERROR = {
    "error": {
        "message": "The model is out of capacity (emulated).",
        "type": "server_error",
        "code": "rate_limit_exceeded",
    }
}
_VIOLENT = {"violence": {"filtered": True, "severity": "medium"}}
_PROMPT_FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _VIOLENT},
    }
}
NO_DEPLOYMENT = _front_end(
    "DeploymentNotFound",
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again.",
)
BAD_KEY = _front_end(
    "401",
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource.",
)
BAD_TOKEN = {
    "statusCode": 401,
    "message": "Unauthorized. Access token is missing, invalid, audience is incorrect "
    "(https://cognitiveservices.azure.com), or have expired.",
}

FAULTS: dict[str, Fault] = {
    "fault-400": Fault(
        "400: a message of the model's own", _error(400, answers.invalid("Invalid request (emulated)."))
    ),
    "fault-401": Fault("401: the key is wrong", _error(401, BAD_KEY)),
    "fault-401-token": Fault("401 in API Management's shape, without an `error` object", _error(401, BAD_TOKEN)),
    "fault-403": Fault(
        "403: the resource's firewall",
        _error(403, _front_end("403", "Access denied due to Virtual Network/Firewall rules.")),
    ),
    "fault-404": Fault("404: no such deployment", _error(404, NO_DEPLOYMENT)),
    "fault-408": Fault(
        "408: the model took too long", _error(408, _front_end("Timeout", "The operation was timeout."))
    ),
    "fault-413": Fault("413: the prompt is too long", _error(413, _front_end("tokens_limit_reached", "Too large."))),
    "fault-429": Fault("429 with `retry-after` and `retry-after-ms` of one second", _rate_limit(RETRY)),
    "fault-429-bare": Fault("429 without a retry header", _rate_limit({})),
    "fault-500": Fault("500: the model's own server error", _error(500, _SERVER_ERROR)),
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
    "fault-silent": Fault("The head of an answer, then silence", _silent),
    "fault-cut": Fault("Half of the answer, then the connection closes", _cut),
    "fault-stall": Fault("Half of the answer, then silence", _stall),
    "fault-no-done": Fault("A stream that ends in good order after half of the answer", _no_done),
    "fault-slow": Fault("A second before the answer; a stream with 0.1 s between events", _slow),
    "fault-endless": Fault("A stream that goes on until the caller leaves", _endless),
    "fault-no-last-newline": Fault("A stream whose `[DONE]` lacks its blank line", _no_last_newline),
    "fault-error-event": Fault("200, and the first event is an error", _error_event),
    "fault-late-error-event": Fault("Half of a stream, then an event that is an error", _late_error_event),
    "fault-filter": Fault("400: the content filter refuses the prompt", _error(400, _PROMPT_FILTERED)),
    "fault-filter-answer": Fault("200, but the content filter stopped the answer", _filtered_answer),
    "fault-unsupported-max-tokens": Fault("400 for `max_tokens`, as reasoning models do", _unsupported_max_tokens),
    "fault-unsupported-temperature": Fault("400 for `temperature`, as reasoning models do", _unsupported_temperature),
}
