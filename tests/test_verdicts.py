from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from chat_api import errors
from chat_api.errors import GatewayError, NoUpstream, Throttled
from chat_api.failures import Failures, Limits
from chat_api.health import Health
from chat_api.operations import DEPLOYMENT_SCOPED
from chat_api.types import Attempt, Body, Call, Deployment, Headers, Reply, Secret
from chat_api.verdicts import (
    FIRST_BACKOFF_SECONDS,
    MAX_WORDS,
    Outcome,
    Verdict,
    conclusion,
    is_held,
    is_sporadic,
    may_be_repeated,
    may_run_twice,
    of_error,
    of_reply,
    outcome_of,
    wait_before_again,
    words_of,
)

WELL, THROTTLED, FAILED, BLAMELESS = Verdict.WELL, Verdict.THROTTLED, Verdict.FAILED, Verdict.BLAMELESS
ELSEWHERE = Verdict.ELSEWHERE
JSON: Headers = ((b"content-type", b"application/json"),)
OURS = Deployment("a", "https://a.openai.azure.com", "2024-10-21", Secret("our-key"))
THEIRS = replace(OURS, key=None)
OTHER_SERVER = Deployment("", "https://api.openai.com/v1", "", Secret("our-key"), "openai")
MISSING = b'{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}'
NOT_FOUND = b'{"error":{"code":"404","message":"Resource not found"}}'
FAILURES = Failures("a.openai.azure.com", "ENDPOINT", Limits())


def reply(status: int, body: bytes = b"{}", deployment: Deployment = OURS, headers: Headers = JSON) -> Reply:
    """A deployment's reply."""
    return Reply(status, headers, body, deployment)


def message(text: str, code: str = "x") -> bytes:
    """An error's body."""
    return b'{"error":{"code":"%s","message":"%s"}}' % (code.encode(), text.encode())


def outcome(result: Reply | GatewayError, deployment: Deployment = OURS) -> Outcome:
    """How an attempt at a deployment ended."""
    return outcome_of(Attempt(deployment, 0.0), Health(deployment), result)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        pytest.param(200, WELL, id="200"),
        pytest.param(201, WELL, id="201"),
        pytest.param(204, WELL, id="204"),
        pytest.param(400, WELL, id="400"),
        pytest.param(402, WELL, id="402"),
        pytest.param(405, WELL, id="405"),
        pytest.param(408, BLAMELESS, id="408"),
        pytest.param(409, WELL, id="409"),
        pytest.param(413, WELL, id="413"),
        pytest.param(415, WELL, id="415"),
        pytest.param(422, WELL, id="422"),
        pytest.param(424, WELL, id="424"),
        pytest.param(428, WELL, id="428"),
        pytest.param(429, THROTTLED, id="429"),
        pytest.param(430, WELL, id="430"),
        pytest.param(431, WELL, id="431"),
        pytest.param(499, WELL, id="499"),
        pytest.param(500, FAILED, id="500"),
        pytest.param(501, WELL, id="501"),
        pytest.param(502, FAILED, id="502"),
        pytest.param(503, FAILED, id="503"),
        pytest.param(504, FAILED, id="504"),
        pytest.param(505, WELL, id="505"),
        pytest.param(507, FAILED, id="507"),
        pytest.param(529, FAILED, id="529"),
        pytest.param(599, FAILED, id="599"),
    ],
)
@pytest.mark.parametrize("deployment", [OURS, THEIRS], ids=["our-key", "callers-key"])
def test_status(status: int, verdict: Verdict, deployment: Deployment) -> None:
    """What a status says of the deployment, whosever key it was asked with."""
    assert of_reply(reply(status, deployment=deployment)) is verdict


@pytest.mark.parametrize(
    ("deployment", "verdict"),
    [
        pytest.param(OURS, THROTTLED, id="azure-our-key"),
        pytest.param(THEIRS, THROTTLED, id="azure-callers-key"),
        pytest.param(OTHER_SERVER, THROTTLED, id="other-our-key"),
        pytest.param(replace(OTHER_SERVER, key=None), BLAMELESS, id="other-callers-key"),
    ],
)
def test_throttled(deployment: Deployment, verdict: Verdict) -> None:
    """Azure throttles a deployment, whoever asks; other servers throttle a key, and a caller's own is nobody else's."""
    assert of_reply(reply(429, deployment=deployment)) is verdict


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("deployment", "verdict"), [pytest.param(OURS, FAILED, id="our-key"), pytest.param(THEIRS, WELL, id="callers-key")]
)
def test_refused_key(status: int, deployment: Deployment, verdict: Verdict) -> None:
    """A key of ours that is refused is a fault of the deployment's settings, a caller's is the caller's own."""
    assert of_reply(reply(status, deployment=deployment)) is verdict


@pytest.mark.parametrize("deployment", [OURS, THEIRS], ids=["our-key", "callers-key"])
@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        pytest.param(MISSING, FAILED, id="no-deployment"),
        pytest.param(NOT_FOUND, WELL, id="resource"),
        pytest.param(message("No such File object: file-abc", "not_found"), WELL, id="file"),
        pytest.param(b"", WELL, id="nothing"),
        pytest.param(b"<html>404</html>", WELL, id="page"),
    ],
)
def test_not_found(body: bytes, verdict: Verdict, deployment: Deployment) -> None:
    """A 404 is the deployment's fault only where it says that there is no such deployment."""
    assert of_reply(reply(404, body, deployment)) is verdict


NO_RESPONSE = message("Previous response with id 'resp_1' not found.", "previous_response_not_found")


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        pytest.param(400, NO_RESPONSE, ELSEWHERE, id="no-response"),
        pytest.param(404, NO_RESPONSE, ELSEWHERE, id="no-response-404"),
        pytest.param(404, MISSING, FAILED, id="no-deployment"),
        pytest.param(
            404, message("No such File object: DeploymentNotFound", "not_found"), WELL, id="id-of-the-callers"
        ),
        pytest.param(
            400, message("'previous_response_not_found' is no response", "x"), WELL, id="words-of-the-callers"
        ),
        pytest.param(404, b"<html>DeploymentNotFound</html>", WELL, id="page"),
        pytest.param(409, NO_RESPONSE, WELL, id="other-status"),
        pytest.param(422, MISSING, WELL, id="other-status-too"),
    ],
)
def test_what_is_not_there(status: int, body: bytes, verdict: Verdict) -> None:
    """It is the error's code that says that another may have it, and no words, which may be the caller's own."""
    assert of_reply(reply(status, body)) is verdict


# Every exception that can come out of an attempt: what the hop raises (`failures`), the judge of what it answered,
# and what is wrong with the call itself.
ERRORS = [
    pytest.param(FAILURES.unreachable(OSError(111, "refused")), FAILED, True, id="connect-error"),
    pytest.param(FAILURES.connect_timeout(), FAILED, True, id="connect-timeout"),
    pytest.param(FAILURES.tls_timeout(), FAILED, True, id="tls-timeout"),
    pytest.param(FAILURES.pool_timeout(), BLAMELESS, True, id="pool-timeout"),
    pytest.param(FAILURES.write_timeout(), FAILED, False, id="write-timeout"),
    pytest.param(FAILURES.first_byte_timeout(), FAILED, False, id="first-byte-timeout"),
    pytest.param(FAILURES.idle_timeout(), FAILED, False, id="idle-timeout"),
    pytest.param(FAILURES.closed(), FAILED, False, id="closed"),
    pytest.param(FAILURES.closed(OSError(104, "reset")), FAILED, False, id="reset"),
    pytest.param(FAILURES.cut_short("eof"), FAILED, False, id="cut-short"),
    pytest.param(FAILURES.not_http(), FAILED, False, id="not-http"),
    pytest.param(errors.StreamBroken("m"), FAILED, False, id="stream-broken"),
    pytest.param(errors.UpstreamTimeout("m"), FAILED, False, id="timeout"),
    pytest.param(errors.UpstreamError("m"), FAILED, False, id="upstream-error"),
    pytest.param(errors.UpstreamError("m", code="not_an_answer"), FAILED, False, id="not-an-answer"),
    pytest.param(errors.UpstreamError("m", code="empty_stream"), FAILED, False, id="empty-stream"),
    pytest.param(errors.UpstreamError("m", code="proxy_failed"), FAILED, False, id="proxy-failed"),
    pytest.param(errors.ConnectError("m", code="proxy_failed"), FAILED, True, id="proxy-connects-not"),
    pytest.param(errors.UpstreamError("m", code="answer_too_large"), WELL, False, id="answer-too-large"),
    pytest.param(errors.ClientGone("m"), WELL, False, id="client-gone"),
    pytest.param(errors.RequestError("m"), WELL, False, id="request-error"),
    pytest.param(errors.BodyTooLarge("m"), WELL, False, id="body-too-large"),
    pytest.param(errors.AuthError("m"), WELL, False, id="no-credential"),
    pytest.param(errors.Forbidden("m"), WELL, False, id="forbidden"),
    pytest.param(errors.GatewayError("m"), WELL, False, id="fault-of-ours"),
]


@pytest.mark.parametrize(("error", "verdict", "never_sent"), ERRORS)
def test_error(error: GatewayError, verdict: Verdict, never_sent: bool) -> None:
    """What an exception says of the deployment, and whether the request may have gone out."""
    assert of_error(error) is verdict
    attempt, member = Attempt(OURS, 0.0), Health(OURS)
    timed_out = isinstance(error, errors.UpstreamTimeout)
    told = outcome_of(attempt, member, error)
    assert told == Outcome(attempt, member, verdict, None, error.message, never_sent, timed_out)
    assert (told.attempt, told.member) == (attempt, member)


def test_every_error_has_a_row() -> None:
    """No exception of the upstream hop is missing in the table above."""

    def leaves(kind: type[GatewayError]) -> set[type[GatewayError]]:
        return {kind, *(leaf for one in kind.__subclasses__() for leaf in leaves(one))}

    tried = {type(row.values[0]) for row in ERRORS}
    # A refusal is read of a reply later, and `Throttled` and `NoUpstream` are conclusions.
    assert leaves(errors.UpstreamError) - {errors.UpstreamRefusal} <= tried
    assert leaves(NoUpstream) - {NoUpstream, Throttled} <= tried


def test_what_cannot_be_sent_says_nothing() -> None:
    """A request that cannot be sent anywhere, such as one with an odd query, says nothing of a deployment."""
    assert of_error(FAILURES.unsendable("the URL holds a character that none has")) is WELL


SPORADIC = [
    pytest.param(reply(500), id="500"),
    pytest.param(reply(502), id="502"),
    pytest.param(reply(504), id="504"),
    pytest.param(reply(529), id="529"),
    pytest.param(FAILURES.closed(), id="closed"),
    pytest.param(FAILURES.cut_short("eof"), id="cut-short"),
    pytest.param(FAILURES.not_http(), id="not-http"),
    pytest.param(errors.UpstreamError("m", code="empty_stream"), id="empty-stream"),
    pytest.param(errors.StreamBroken("m"), id="stream-broken"),
]
LASTING = [
    pytest.param(reply(401), id="401"),
    pytest.param(reply(403), id="403"),
    pytest.param(reply(404, MISSING), id="404"),
    pytest.param(reply(503), id="503"),
    pytest.param(FAILURES.unreachable(OSError(111, "refused")), id="connect-error"),
    pytest.param(FAILURES.connect_timeout(), id="connect-timeout"),
    pytest.param(FAILURES.tls_timeout(), id="tls-timeout"),
    pytest.param(FAILURES.first_byte_timeout(), id="first-byte-timeout"),
    pytest.param(FAILURES.write_timeout(), id="write-timeout"),
    pytest.param(FAILURES.idle_timeout(), id="idle-timeout"),
]


@pytest.mark.parametrize("result", SPORADIC)
def test_sporadic(result: Reply | GatewayError) -> None:
    """A 500, a broken connection and an answer that is none happen to those who are well."""
    assert is_sporadic(outcome(result))


@pytest.mark.parametrize("result", LASTING)
def test_not_sporadic(result: Reply | GatewayError) -> None:
    """A refused connection, silence, a refused key and a 503, which is said on purpose, do not."""
    assert not is_sporadic(outcome(result))


def test_outcome_keeps_no_trace() -> None:
    """An outcome has an error's words, not the error."""
    error = errors.UpstreamClosed("words")
    assert not any(isinstance(getattr(outcome(error), name), BaseException) for name in Outcome.__struct_fields__)


class Piecewise:
    """A body that is not held in memory."""

    size = None

    def __init__(self, *, is_repeatable: bool) -> None:
        self.is_repeatable = is_repeatable

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""

    def with_model(self, name: str) -> Body:
        """It is the same."""
        return self


HELD, FORM, UPLOAD = b"{}", Piecewise(is_repeatable=True), Piecewise(is_repeatable=False)


def call(operation: str, method: str = "POST", body: bytes | Body = HELD) -> Call:
    """A call of that kind."""
    return Call(operation, "m", body, False, method=method)


@pytest.mark.parametrize(
    ("body", "held"),
    [
        pytest.param(HELD, True, id="bytes"),
        pytest.param(b"", True, id="none"),
        pytest.param(FORM, True, id="repeatable"),
        pytest.param(UPLOAD, False, id="upload"),
    ],
)
def test_is_held(body: bytes | Body, held: bool) -> None:
    """A body can be sent again if it is in memory or on disk."""
    assert is_held(call("chat/completions", body=body)) is held


TWICE = [
    *(pytest.param(operation, "POST", HELD, id=operation) for operation in sorted(DEPLOYMENT_SCOPED)),
    pytest.param("responses", "POST", HELD, id="responses"),
    pytest.param("responses", "POST", b'{"input":"in the background of mcp"}', id="responses-with-such-words"),
    pytest.param("chat/completions", "POST", b'{"background":true}', id="chat-that-knows-no-background"),
    pytest.param("audio/transcriptions", "POST", FORM, id="audio-form"),
    pytest.param("files", "GET", b"", id="files-list"),
    pytest.param("files/f", "GET", b"", id="file"),
    pytest.param("batches/b", "HEAD", b"", id="head"),
    pytest.param("/openai/anything", "GET", b"", id="outside-of-v1"),
]
ONCE = [
    pytest.param("files", "POST", HELD, id="files"),
    pytest.param("files", "POST", FORM, id="files-form"),
    pytest.param("batches", "POST", HELD, id="batches"),
    pytest.param("assistants", "POST", HELD, id="assistants"),
    pytest.param("threads", "POST", HELD, id="threads"),
    pytest.param("threads/t/runs", "POST", HELD, id="runs"),
    pytest.param("responses/r/cancel", "POST", HELD, id="response-cancel"),
    pytest.param("responses", "POST", b'{"background": true}', id="response-in-the-background"),
    pytest.param("responses", "POST", b'{"tools":[{"type":"mcp"}]}', id="response-that-acts"),
    pytest.param("fine_tuning/jobs", "POST", HELD, id="fine-tuning"),
    pytest.param("files/f", "DELETE", b"", id="delete"),
    pytest.param("chat/completions/c", "POST", HELD, id="stored-chat"),
    pytest.param("/openai/anything", "POST", HELD, id="outside-of-v1"),
]
NEVER = [
    pytest.param("chat/completions", "POST", UPLOAD, id="chat"),
    pytest.param("files", "POST", UPLOAD, id="files"),
    pytest.param("files", "GET", UPLOAD, id="get"),
]


@pytest.mark.parametrize(("operation", "method", "body"), TWICE)
def test_may_run_twice(operation: str, method: str, body: bytes | Body) -> None:
    """A model may run again, and something may be read again."""
    assert may_run_twice(call(operation, method, body))


@pytest.mark.parametrize(("operation", "method", "body"), [*ONCE, *NEVER])
def test_may_not_run_twice(operation: str, method: str, body: bytes | Body) -> None:
    """What leaves something behind, and a body that is gone, may not."""
    assert not may_run_twice(call(operation, method, body))


NEVER_SENT = [
    pytest.param(FAILURES.unreachable(OSError(111, "refused")), id="connect-error"),
    pytest.param(FAILURES.connect_timeout(), id="connect-timeout"),
    pytest.param(FAILURES.tls_timeout(), id="tls-timeout"),
    pytest.param(FAILURES.pool_timeout(), id="pool-timeout"),
]
NOT_DONE = [
    pytest.param(reply(401), id="401"),
    pytest.param(reply(403), id="403"),
    pytest.param(reply(404, MISSING), id="404"),
    pytest.param(reply(429), id="429"),
    pytest.param(reply(429, deployment=replace(OTHER_SERVER, key=None)), id="callers-429"),
    pytest.param(reply(400, NO_RESPONSE), id="no-response"),
    pytest.param(reply(503), id="503"),
]
PERHAPS_DONE = [
    pytest.param(reply(408), id="408"),
    pytest.param(reply(500), id="500"),
    pytest.param(reply(502), id="502"),
    pytest.param(reply(504), id="504"),
    pytest.param(FAILURES.closed(), id="closed"),
    pytest.param(FAILURES.first_byte_timeout(), id="first-byte-timeout"),
    pytest.param(FAILURES.write_timeout(), id="write-timeout"),
    pytest.param(FAILURES.cut_short("eof"), id="cut-short"),
]
ANSWERED = [
    pytest.param(reply(200), id="200"),
    pytest.param(reply(400), id="400"),
    pytest.param(reply(401, deployment=THEIRS), id="callers-401"),
    pytest.param(reply(404, NOT_FOUND), id="other-404"),
    pytest.param(reply(409), id="409"),
    pytest.param(reply(424), id="424"),
    pytest.param(reply(501), id="501"),
    pytest.param(FAILURES.unsendable("m"), id="unsendable"),
    pytest.param(errors.ClientGone("m"), id="client-gone"),
    pytest.param(errors.RequestError("m"), id="request-error"),
    pytest.param(errors.UpstreamError("m", code="answer_too_large"), id="too-large"),
]


def repeated(result: Reply | GatewayError, kinds: Sequence[Any]) -> dict[str, bool]:
    """Which kinds of calls are sent again after this."""
    return {str(kind.id): may_be_repeated(outcome(result), call(*kind.values)) for kind in kinds}


@pytest.mark.parametrize("result", [*NEVER_SENT, *NOT_DONE, *PERHAPS_DONE])
def test_repeated(result: Reply | GatewayError) -> None:
    """What may run twice is sent again after every failure."""
    assert repeated(result, TWICE) == {str(kind.id): True for kind in TWICE}


@pytest.mark.parametrize("result", [*NEVER_SENT, *NOT_DONE])
def test_repeated_once_it_is_certain(result: Reply | GatewayError) -> None:
    """What leaves something behind is sent again where it was not sent, or was refused before anything was done."""
    assert repeated(result, ONCE) == {str(kind.id): True for kind in ONCE}


@pytest.mark.parametrize("result", PERHAPS_DONE)
def test_not_repeated(result: Reply | GatewayError) -> None:
    """What leaves something behind is not sent again where it may have been done."""
    assert repeated(result, ONCE) == {str(kind.id): False for kind in ONCE}


@pytest.mark.parametrize("result", [*NEVER_SENT, *NOT_DONE, *PERHAPS_DONE, *ANSWERED])
def test_never_repeated(result: Reply | GatewayError) -> None:
    """A body that was passed on as it came is not sent again after anything."""
    assert repeated(result, NEVER) == {str(kind.id): False for kind in NEVER}


@pytest.mark.parametrize("result", ANSWERED)
def test_answer_is_not_repeated(result: Reply | GatewayError) -> None:
    """Nothing is sent again that was answered, or that is the caller's own fault."""
    assert not may_be_repeated(outcome(result), call("chat/completions"))


def after(value: bytes, name: bytes = b"retry-after") -> Reply:
    """A 429 that asks to wait."""
    return reply(429, headers=((name, value),))


@pytest.mark.parametrize(
    ("result", "left", "expected"),
    [
        pytest.param(after(b"2"), 5.0, 2.0, id="throttled"),
        pytest.param(after(b"5"), 5.0, 5.0, id="throttled-to-the-second"),
        pytest.param(after(b"6"), 5.0, None, id="throttled-for-longer"),
        pytest.param(after(b"0"), 5.0, 0.0, id="throttled-for-nothing"),
        pytest.param(reply(429), 10.0, 10.0, id="throttled-without-a-word-long-patience"),
        pytest.param(after(b"3", b"x-ratelimit-reset-tokens"), 5.0, 3.0, id="throttled-until-its-reset"),
        pytest.param(after(b"100", b"retry-after-ms"), 5.0, 0.1, id="throttled-for-milliseconds"),
        pytest.param(after(b"Sun, 06 Nov 1994 08:49:40 GMT"), 5.0, 3.0, id="throttled-until"),
        pytest.param(reply(429), 5.0, None, id="throttled-without-a-word"),
        pytest.param(reply(401), 5.0, None, id="401"),
        pytest.param(reply(403), 5.0, None, id="403"),
        pytest.param(reply(404, MISSING), 5.0, None, id="404"),
    ],
)
def test_wait_for_the_only_one(result: Reply, left: float, expected: float | None) -> None:
    """A call waits for its only deployment as long as that asks, if it may; not where the answer will be the same."""
    assert wait_before_again(outcome(result), 1, left, 784111777.0, Random(1)) == expected


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(reply(500), id="500"),
        pytest.param(reply(503, headers=((b"retry-after", b"30"),)), id="503"),
        pytest.param(reply(408), id="408"),
        pytest.param(FAILURES.closed(), id="closed"),
        pytest.param(FAILURES.pool_timeout(), id="pool-timeout"),
    ],
)
@pytest.mark.parametrize("tries", [1, 2, 3, 6])
def test_backoff(result: Reply | GatewayError, tries: int) -> None:
    """A deployment that has failed is asked again after 0.1 s, twice that each time, and up to half as much more."""
    least = FIRST_BACKOFF_SECONDS * 2 ** (tries - 1)
    waits = [wait_before_again(outcome(result), tries, 100.0, 0.0, Random(seed)) or 0.0 for seed in range(200)]
    assert all(least <= wait <= 1.5 * least for wait in waits)
    assert max(waits) > 1.4 * least
    assert min(waits) < 1.1 * least
    assert wait_before_again(outcome(result), tries, least * 0.99, 0.0, Random(1)) is None


# Conclusions.


NOW = 1000.0


def deployment(place: int) -> Deployment:
    """a@a.test, b@b.test, …"""
    return replace(OURS, name="abcdefgh"[place], base_url=f"https://{'abcdefgh'[place]}.test")


def member(place: int = 0, *, cooled: float = 0.0, ejected: float = 0.0, full: bool = False, said: str = "") -> Health:
    """A deployment's health: for how long it is left alone still, and what it said last."""
    health = Health(replace(deployment(place), max_in_flight=1))
    health.cooled_until = NOW + cooled if cooled else 0.0
    health.ejected_until = NOW + ejected if ejected else 0.0
    health.in_flight = int(full)
    if said:
        health.note(0.0, said)
    return health


def concluded(
    *results: Reply | GatewayError,
    model: str = "m",
    rest: Sequence[Health] = (),
    asked: Sequence[Health] = (),
    stand_ins: Sequence[Reply | GatewayError] = (),
) -> Reply | GatewayError:
    """What is told of attempts at deployments a, b, … and then at those that stand in for them."""
    outcomes = []
    for place, result in enumerate([*results, *stand_ins]):
        attempt = Attempt(deployment(place), 0.0, fallback="small" if place >= len(results) else None)
        health = asked[place] if place < len(asked) else Health(attempt.deployment)
        outcomes.append(outcome_of(attempt, health, result))
    try:
        return conclusion(outcomes, rest, model=model, now=NOW)
    except GatewayError as error:
        return error


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        pytest.param(0.0, b"1", id="now"),
        pytest.param(0.1, b"1", id="soon"),
        pytest.param(1.0, b"1", id="a-second"),
        pytest.param(1.01, b"2", id="rounded-up"),
        pytest.param(59.5, b"60", id="a-minute"),
    ],
)
def test_all_throttled(wait: float, seconds: bytes) -> None:
    """If all throttle the last one's 429 is the reply, with the wait for the one that is back soonest."""
    headers: Headers = (*JSON, (b"retry-after", b"60"), (b"retry-after-ms", b"59990"), (b"x-ratelimit-limit-t", b"9"))
    asked = [member(0, cooled=wait), member(1, cooled=60)]
    told = concluded(reply(429, b"first"), reply(429, b"last", headers=headers), asked=asked)
    assert isinstance(told, Reply)
    assert (told.status, told.body) == (429, b"last")
    assert told.headers == (*JSON, (b"x-ratelimit-limit-t", b"9"), (b"retry-after", seconds))


def test_one_of_the_rest_is_back_sooner() -> None:
    """The wait is also that for one that was not asked."""
    told = concluded(reply(429), asked=[member(0, cooled=50)], rest=[member(1, cooled=7)])
    assert isinstance(told, Reply)
    assert dict(told.headers)[b"retry-after"] == b"7"


@pytest.mark.parametrize(
    ("model", "what"),
    [pytest.param("gpt", 'model "gpt"', id="named"), pytest.param("", "no deployment takes", id="default")],
)
def test_all_cooled_down(model: str, what: str) -> None:
    """If all throttle and none was asked that is a 429 of ours, with the wait for the one that is back soonest."""
    told = concluded(model=model, rest=[member(0, cooled=30), member(1, cooled=6.2)])
    assert isinstance(told, Throttled)
    assert (told.status, told.headers) == (429, ((b"retry-after", b"7"),))
    assert what in told.message
    assert "throttled; the first one does again in 7 s" in told.message


@pytest.mark.parametrize(
    ("other", "seconds"),
    [
        pytest.param(member(1, full=True), b"1", id="full"),
        pytest.param(member(1, cooled=9, full=True), b"3", id="full-and-throttled"),
        pytest.param(member(1, ejected=-1, full=True), b"1", id="half-open-and-full"),
        pytest.param(member(1, ejected=50, full=True), b"1", id="failed-and-full"),
    ],
)
def test_none_to_ask(other: Health, seconds: bytes) -> None:
    """If none was asked, and one that was not is full or has failed, the reason is not throttling alone: 503."""
    told = concluded(rest=[member(0, cooled=3), other])
    assert isinstance(told, NoUpstream)
    assert (type(told), told.status, told.headers) == (NoUpstream, 503, ((b"retry-after", seconds),))
    assert told.message == 'no deployment for model "m" takes calls now: all are busy, throttled or failing'


MIXED = [
    pytest.param((reply(429, message("slow")), FAILURES.closed()), id="throttled-and-closed"),
    pytest.param((reply(404, MISSING), reply(500)), id="missing-and-failed"),
    pytest.param((reply(404, MISSING), reply(429)), id="missing-and-throttled"),
    pytest.param((reply(401), reply(401)), id="keys"),
    pytest.param((reply(500),), id="one"),
    pytest.param((FAILURES.pool_timeout(),), id="busy"),
    pytest.param((reply(408), reply(429)), id="408-and-throttled"),
]


@pytest.mark.parametrize("results", MIXED)
@pytest.mark.parametrize("rest", [[], [member(7, ejected=55)]], ids=["", "others-failed"])
def test_each_in_its_way(results: tuple[Reply | GatewayError, ...], rest: list[Health]) -> None:
    """If they fail, each in its way, that is a 503 with a short wait: those that fail are asked all the same."""
    told = concluded(*results, rest=rest, asked=[member(place, ejected=58) for place in range(len(results))])
    assert type(told) is NoUpstream
    assert (told.status, told.code, told.headers) == (503, "no_upstream", ((b"retry-after", b"1"),))


def test_wait_of_those_that_fail_and_throttle() -> None:
    """One that has failed and throttles as well is asked as soon as it throttles no more, and that is the wait."""
    told = concluded(reply(500), asked=[member(0, cooled=4, ejected=30)])
    assert isinstance(told, GatewayError)
    assert told.headers == ((b"retry-after", b"4"),)


@pytest.mark.parametrize("status", [404, 429])
def test_others_had_failed(status: int) -> None:
    """A 429 or 404 of all that were asked is not the reply while another one, not asked, had failed."""
    told = concluded(reply(status, MISSING), rest=[member(1, ejected=3)])
    assert type(told) is NoUpstream


@pytest.mark.parametrize("status", [404, 429])
def test_others_are_missing(status: int) -> None:
    """It is the reply if all that the others said is that there is no such deployment."""
    first = reply(status, MISSING)
    told = concluded(first, rest=[member(1, ejected=3, said="404")])
    assert isinstance(told, Reply)
    assert (told.status, told.body) == (status, MISSING)


def test_stand_ins_refusal_is_not_the_last_word() -> None:
    """Where the model's own throttle their 429 is the reply, whatever a stand-in said of the call."""
    told = concluded(reply(429, b"own"), stand_ins=[reply(400, b"stand-in's")], asked=[member(0, cooled=20)])
    assert isinstance(told, Reply)
    assert (told.status, told.body) == (429, b"own")


def test_stand_in_that_fails_alone() -> None:
    """Where a caller may use none but the stand-in, and that fails, nobody throttles."""
    told = concluded(stand_ins=[reply(500, message("m"))])
    assert type(told) is NoUpstream


@pytest.mark.parametrize(("refusals", "status"), [((NO_RESPONSE, NO_RESPONSE), 400), ((MISSING, NO_RESPONSE), 404)])
def test_none_has_what_is_named(refusals: tuple[bytes, bytes], status: int) -> None:
    """If none of them knows the response that the call goes on from, that is told as the last one said it."""
    first, last = reply(status, refusals[0]), reply(status, refusals[1])
    assert concluded(first, last) is last


def test_own_key_is_throttled_everywhere() -> None:
    """If all throttle the caller's own key the last one's 429 is the reply, with its own wait."""
    server = replace(OTHER_SERVER, key=None)
    last = reply(429, deployment=server, headers=((b"retry-after", b"33"),))
    assert concluded(reply(429, deployment=server), last) is last


def test_stand_ins_are_named() -> None:
    """The message of a 503 names those that stood in as well."""
    told = concluded(reply(500, message("one")), stand_ins=[reply(400, message("two"))])
    assert isinstance(told, NoUpstream)
    assert told.message == 'no deployment for model "m" could answer: a@a.test: 500 one; b@b.test: 400 two'


def test_each_is_named() -> None:
    """The message of a 503 names each deployment, in order, and what it said."""
    told = concluded(
        reply(429, message("rate limit exceeded")),
        FAILURES.closed(),
        reply(500, b"<html><b>oops</b></html>"),
        model="x",
    )
    assert isinstance(told, NoUpstream)
    assert told.message.startswith('no deployment for model "x" could answer: ')
    first, second, third = told.message.removeprefix('no deployment for model "x" could answer: ').split("; ")
    assert first == "a@a.test: 429 rate limit exceeded"
    assert second == "b@b.test: a.openai.azure.com closed the connection without answering"
    assert third.startswith("c@c.test: 500 ")
    assert "oops" in third


def test_none_knows_of_it() -> None:
    """If none knows of the deployment the last one's 404 is the reply, as it came."""
    last = reply(404, message("DeploymentNotFound 2"))
    assert concluded(reply(404, MISSING), last, asked=[member(0, ejected=5), member(1, ejected=5)]) is last


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(reply(500, message("m")), "500 m", id="message"),
        pytest.param(reply(500, message("m" * MAX_WORDS)), "500 " + "m" * MAX_WORDS, id="as-long-as-may-be"),
        pytest.param(reply(500, message("m" * 100_000)), "500 " + "m" * MAX_WORDS + "…", id="too-long"),
        pytest.param(errors.UpstreamClosed("closed"), "closed", id="error"),
    ],
)
def test_words(result: Reply | GatewayError, expected: str) -> None:
    """An outcome in words is the status and what the deployment said, cut short, or the error's message."""
    assert words_of(outcome(result)) == expected


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(reply(500, message("one\\ntwo\\u2028three")), id="reply"),
        pytest.param(errors.UpstreamError("one\r\ntwo\u2028three"), id="error"),
    ],
)
def test_words_are_a_line(result: Reply | GatewayError) -> None:
    """An outcome in words is one line: nobody upstream writes lines of the log."""
    assert len(words_of(outcome(result)).splitlines()) == 1
