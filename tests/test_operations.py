"""What a path asks for: the operation, and the deployment it names; and what no path may hold."""

from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_api.errors import RequestError, UnknownPath
from chat_api.operations import CLASSIC_ONLY, DEPLOYMENT_SCOPED, Target, is_unrouted, parse_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("chat/completions", Target("chat/completions"), id="chat"),
        pytest.param("chat/completions/", Target("chat/completions"), id="trailing-slash"),
        pytest.param("models/gpt-4.1", Target("models/gpt-4.1"), id="model"),
        pytest.param("models/ft%3Agpt", Target("models/ft%3Agpt"), id="quoted"),
        pytest.param("models/a%20b", Target("models/a%20b"), id="space"),
        pytest.param("files/%C3%A9", Target("files/%C3%A9"), id="not-ascii"),
        pytest.param("files/%252F..", Target("files/%252F.."), id="quoted-twice"),
        pytest.param("files/...", Target("files/..."), id="three-dots"),
        pytest.param("threads/t/runs/r", Target("threads/t/runs/r"), id="run"),
        pytest.param("deployments/d/chat/completions", Target("chat/completions", "d"), id="deployment"),
        pytest.param("deployments/d/chat/completions/", Target("chat/completions", "d"), id="deployment-slash"),
        pytest.param("engines/d/completions", Target("completions", "d"), id="engine"),
        pytest.param("engines/d/embeddings", Target("embeddings", "d"), id="engine-embeddings"),
        pytest.param(
            "deployments/d/extensions/chat/completions", Target("extensions/chat/completions", "d"), id="extensions"
        ),
        pytest.param("deployments/d/batches", Target("batches", "d"), id="batches"),
        pytest.param("deployments/d/new/thing", Target("new/thing", "d"), id="unknown-operation"),
        pytest.param("deployments/gpt-4.1_mini~x/embeddings", Target("embeddings", "gpt-4.1_mini~x"), id="unreserved"),
        pytest.param("deployments/a%20b/embeddings", Target("embeddings", "a b"), id="name-with-a-space"),
        pytest.param("deployments/%C3%BC/embeddings", Target("embeddings", "ü"), id="name-not-ascii"),
        pytest.param("deployments/dep%2F1/embeddings", Target("embeddings", "dep/1"), id="name-with-a-quoted-slash"),
        pytest.param("deployments/dep%2f1/embeddings", Target("embeddings", "dep/1"), id="lower-case-quote"),
        pytest.param("deployments/dep/1/embeddings", Target("embeddings", "dep/1"), id="name-with-a-slash"),
        pytest.param("deployments/a/b/c/audio/speech", Target("audio/speech", "a/b/c"), id="name-with-slashes"),
        pytest.param("deployments/chat/chat/completions", Target("chat/completions", "chat"), id="name-like-a-path"),
        pytest.param("deployments/chat/completions", Target("completions", "chat"), id="name-that-begins-a-path"),
        pytest.param("deployments/a%252Fb/embeddings", Target("embeddings", "a%2Fb"), id="name-quoted-twice"),
        pytest.param("deployments", Target("deployments"), id="list-of-deployments"),
        pytest.param("deployments/d", Target("deployments/d"), id="a-deployment"),
        pytest.param("Chat/Completions", Target("chat/completions"), id="other-letters"),
        pytest.param("RESPONSES", Target("responses"), id="capitals"),
        pytest.param("Deployments/D/Chat/completions", Target("chat/completions", "D"), id="deployment-other-letters"),
        pytest.param("ENGINES/D/EMBEDDINGS", Target("embeddings", "D"), id="engine-in-capitals"),
        pytest.param("DEPLOYMENTS/a/B/Audio/Speech", Target("audio/speech", "a/B"), id="slashes-and-other-letters"),
        pytest.param("Deployments/a%2fB/embeddings", Target("embeddings", "a/B"), id="quoted-slash-other-letters"),
        pytest.param("Threads/T1/Runs", Target("Threads/T1/Runs"), id="letters-of-ids-are-theirs"),
        pytest.param("deploymentsx/d/embeddings", Target("deploymentsx/d/embeddings"), id="another-word"),
    ],
)
def test_path(path: str, expected: Target) -> None:
    """A path is an operation, as quoted as it came; one of a deployment names that too, unquoted."""
    assert parse_path(path) == expected


@pytest.mark.parametrize("operation", sorted(DEPLOYMENT_SCOPED))
@pytest.mark.parametrize("name", ["d", "a/b", "a%2Fb"])
def test_scoped_path(operation: str, name: str) -> None:
    """Every operation that is scoped to a deployment is found behind a name, however its slashes are written."""
    assert parse_path(f"deployments/{name}/{operation}") == Target(operation, unquote(name))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(".", id="dot"),
        pytest.param("..", id="dots"),
        pytest.param("../files", id="dots-first"),
        pytest.param("files/..", id="dots-last"),
        pytest.param("files/./f", id="dot-within"),
        pytest.param("files/%2e%2e/f", id="quoted-dots"),
        pytest.param("files/.%2E/f", id="half-quoted-dots"),
        pytest.param("files/a%2fb", id="quoted-slash"),
        pytest.param("files/a%2Fb", id="quoted-slash-upper-case"),
        pytest.param("files/..%2f..%2fx", id="quoted-traversal"),
        pytest.param("files/a\\b", id="backslash"),
        pytest.param("files/a%5Cb", id="quoted-backslash"),
        pytest.param("files/..%5c..", id="quoted-backslash-traversal"),
        pytest.param("files/a%00", id="nul"),
        pytest.param("files/a%0d%0ab", id="crlf"),
        pytest.param("files/a\tb", id="tab"),
        pytest.param("files/a%7f", id="delete"),
        pytest.param("files/a%E2%80%A8", id="line-separator"),
        pytest.param("files/%ff", id="not-utf-8"),
        pytest.param("files/%ed%a0%80", id="surrogate"),
        pytest.param("deployments/../chat/completions", id="deployment-dots"),
        pytest.param("deployments/%2e%2e/chat/completions", id="deployment-quoted-dots"),
        pytest.param("deployments/a%2F..%2Fb/chat/completions", id="deployment-traversal"),
        pytest.param("deployments/..%2Fb/chat/completions", id="deployment-traversal-first"),
        pytest.param("deployments/a%2F/chat/completions", id="deployment-empty-segment"),
        pytest.param("deployments/a%5C..%5Cb/chat/completions", id="deployment-backslashes"),
        pytest.param("deployments/d%0A/chat/completions", id="deployment-line-feed"),
        pytest.param("deployments/" + "d" * 129 + "/chat/completions", id="deployment-long"),
        pytest.param("deployments/a/b%2Fc/chat/completions", id="deployment-slashes-both-ways"),
        pytest.param("deployments/d/files/a%2Fb", id="quoted-slash-behind-a-deployment"),
    ],
)
def test_refused_path(path: str) -> None:
    """Traversal, quoted slashes and control characters are refused, and the message can be printed."""
    with pytest.raises(RequestError) as caught:
        parse_path(path)
    assert (caught.value.status, caught.value.code) in ((400, "invalid_path"), (400, "invalid_model"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("", "no path", id="empty"),
        pytest.param("/", "no path", id="slash"),
        pytest.param("//", "no path", id="slashes"),
        pytest.param("/files", "did you mean /v1/files?", id="leading-slash"),
        pytest.param("chat//completions", "did you mean /v1/chat/completions?", id="doubled-slash"),
        pytest.param("files//", "did you mean /v1/files?", id="doubled-trailing-slash"),
        pytest.param("deployments//chat/completions", "did you mean", id="empty-deployment"),
    ],
)
def test_unknown_path(path: str, message: str) -> None:
    """An empty segment is a mistake in a base URL: the answer says what was meant."""
    with pytest.raises(UnknownPath) as caught:
        parse_path(path)
    assert caught.value.status == 404
    assert message in caught.value.message


@pytest.mark.parametrize("path", ["deployments/..%2F..%2Ffiles", "engines/%2e%2e%2Fx", "deployments/a%2F..%2Fb/"])
def test_deployment_alone_is_checked(path: str) -> None:
    """The name of a deployment is checked whether or not an operation follows it."""
    with pytest.raises(RequestError):
        parse_path(path)


def test_quoted_slash_behind_its_double() -> None:
    """A quoted slash may stand in the deployment's name only, not in another segment that is written the same."""
    with pytest.raises(RequestError):
        parse_path("deployments/a%2Fb/a%2Fb")


PIECES = st.sampled_from(
    ["deployments", "engines", "chat/completions", "files", "/", "//", ".", "..", "%2e", "%2F", "%5c", "\\", "%00", "%"]
) | st.text(max_size=3)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20) | st.lists(PIECES, max_size=8).map("".join))
@example("deployments/a%2F%2E%2E/embeddings")
def test_any_path(path: str) -> None:
    """Any path is refused as the caller's fault, or is an operation without a dot segment or an empty one."""
    try:
        target = parse_path(path)
    except RequestError:
        return
    segments = target.operation.split("/")
    assert not {"", ".", ".."} & {unquote(segment) for segment in segments}
    assert "\\" not in unquote(target.operation)
    assert unquote(target.operation, errors="strict").isprintable()
    if target.model is not None:
        assert not {"", ".", ".."} & set(target.model.split("/"))
        assert target.model.isprintable()


@pytest.mark.parametrize(
    ("method", "operation", "expected"),
    [
        pytest.param("POST", "chat/completions", False, id="chat"),
        pytest.param("POST", "responses", False, id="responses"),
        pytest.param("POST", "responses/r/cancel", False, id="cancel"),
        pytest.param("POST", "threads/t/runs", False, id="run"),
        pytest.param("PUT", "chat/completions", False, id="put"),
        pytest.param("GET", "responses/r", True, id="get"),
        pytest.param("HEAD", "responses/r", True, id="head"),
        pytest.param("DELETE", "responses/r", True, id="delete"),
        pytest.param("POST", "files", True, id="files"),
        pytest.param("POST", "files/f/x", True, id="below-files"),
        pytest.param("POST", "uploads/u/parts", True, id="uploads"),
        pytest.param("POST", "batches", True, id="batches"),
        pytest.param("POST", "fine_tuning/jobs", True, id="fine-tuning"),
        pytest.param("POST", "fine-tunes", True, id="fine-tunes"),
        pytest.param("POST", "vector_stores/v/files", True, id="vector-stores"),
        pytest.param("POST", "containers", True, id="containers"),
        pytest.param("POST", "evals", True, id="evals"),
        pytest.param("POST", "filesystem", False, id="another-word"),
        pytest.param("POST", "x/files", False, id="not-at-the-start"),
    ],
)
def test_is_unrouted(method: str, operation: str, expected: bool) -> None:
    """What lies in a resource, and what has no body, goes its way without being read."""
    assert is_unrouted(method, operation) is expected


def test_classic_only_is_scoped() -> None:
    """What v1 does not serve is all scoped to deployments."""
    assert CLASSIC_ONLY.keys() <= DEPLOYMENT_SCOPED
