from dataclasses import replace

import pytest

from chat_api import groups as module
from chat_api.errors import RequestError
from chat_api.groups import MAX_NAME_CHARS, Groups
from chat_api.models import Models, UnknownModel
from chat_api.pool import Pool
from chat_api.types import Call, Deployment, Secret

EAST = Deployment("gpt", "https://east.openai.azure.com", "2024-10-21", Secret("key-of-east"))
WEST = replace(EAST, base_url="https://west.openai.azure.com", key=Secret("key-of-west"))
MINI = replace(WEST, name="mini")


def groups_of(models: Models) -> Groups:
    """The groups over a table whose deployments are all configured."""
    return Groups(models, Pool(models.deployments))


def two(fallbacks: dict[str, str] | None = None) -> Groups:
    """A model at two resources, one at the second only; east is the default."""
    return groups_of(Models({"m": [EAST, WEST], "small": [MINI]}, [EAST, WEST], "pass", fallbacks))


def call(operation: str, model: str | None = None, *, method: str = "POST", body: bytes = b"{}") -> Call:
    """A call of that kind."""
    return Call(operation, model, body, False, method=method)


def went(groups: Groups, one: Call) -> tuple[list[str], str | None]:
    """The hosts that a call may go to, and the one that it has to."""
    group, at = groups.of(one)
    return [member.deployment.host.partition(".")[0] for member in group.members], at and at[0][8:12]


@pytest.mark.parametrize(
    ("operation", "method", "model", "expected"),
    [
        pytest.param("chat/completions", "POST", "m", (["east", "west"], None), id="chat"),
        pytest.param("chat/completions", "POST", None, (["east", "west"], None), id="chat-default-model"),
        pytest.param("chat/completions", "POST", "small", (["west"], None), id="chat-elsewhere"),
        pytest.param("responses", "POST", "m", (["east", "west"], None), id="response"),
        pytest.param("responses", "POST", "small", (["west"], None), id="response-elsewhere"),
        pytest.param("assistants", "POST", "m", (["east", "west"], "east"), id="assistant"),
        pytest.param("assistants", "POST", "small", (["west"], None), id="assistant-elsewhere"),
        pytest.param("threads/runs", "POST", "m", (["east", "west"], "east"), id="run-with-a-model"),
        pytest.param("threads", "POST", None, (["east"], None), id="thread"),
        pytest.param("files", "POST", None, (["east"], None), id="file"),
        pytest.param("files", "GET", None, (["east"], None), id="files"),
        pytest.param("batches", "POST", None, (["east"], None), id="batch"),
        pytest.param("responses/resp_1", "GET", None, (["east"], None), id="response-without-an-id"),
        pytest.param("responses/resp_999999", "GET", None, (["east", "west"], None), id="response-of-nobody-known"),
        pytest.param("files/file-999999", "DELETE", None, (["east", "west"], None), id="file-of-nobody-known"),
        pytest.param("files/file-999999/content", "GET", None, (["east", "west"], None), id="content-of-it"),
        pytest.param("batches/batch_999999/cancel", "POST", None, (["east", "west"], None), id="batch-of-nobody-known"),
        pytest.param("threads/thread_999999/runs", "POST", "m", (["east", "west"], "east"), id="run-of-nobody-known"),
        pytest.param("assistants", "GET", None, (["east"], None), id="assistants-list"),
    ],
)
def test_where_a_call_goes(operation: str, method: str, model: str | None, expected: tuple[list[str], str]) -> None:
    """A model's call goes to its deployments; what is made without a word of where goes to the first default one."""
    assert went(two(), call(operation, model, method=method)) == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(call("responses/resp_111111", method="GET"), (["west"], None), id="path"),
        pytest.param(call("threads/thread_111111/runs"), (["west"], None), id="thread"),
        pytest.param(
            call("responses", "m", body=b'{"previous_response_id":"resp_111111"}'),
            (["east", "west"], "west"),
            id="response-that-follows",
        ),
        pytest.param(
            call("threads/thread_111111/runs", "m", body=b'{"model":"m"}'), (["east", "west"], "west"), id="run"
        ),
        pytest.param(
            call("chat/completions", "m", body=b'{"x":"resp_111111"}'), (["east", "west"], None), id="chat-is-anywhere"
        ),
        pytest.param(call("responses/resp_999999", method="GET"), (["east", "west"], None), id="another-one"),
        pytest.param(call("responses/resp_111111/cancel"), (["west"], None), id="path-of-a-post"),
        pytest.param(call("batches", body=b'{"input_file_id":"thread_111111"}'), (["west"], None), id="body"),
    ],
)
def test_what_is_known_goes_to_who_made_it(one: Call, expected: tuple[list[str], str | None]) -> None:
    """A call that names what a resource has made goes there, model or not."""
    groups = two()
    assert groups.affinity is not None
    groups.affinity.note(b'{"id":"resp_111111","thread_id":"thread_111111"}', WEST.resource)
    assert went(groups, one) == expected


def test_bound_to_where_the_model_is_not() -> None:
    """A run in a thread goes to the thread's resource though its model is elsewhere; a response goes to its model."""
    groups = two()
    assert groups.affinity is not None
    groups.affinity.note(b'{"id":"thread_111111","response_id":"resp_111111"}', EAST.resource)
    assert went(groups, call("threads/thread_111111/runs", "small")) == (["east"], None)
    follows = call("responses", "small", body=b'{"previous_response_id":"resp_111111"}')
    assert went(groups, follows) == (["west"], None)


def test_single_resource_remembers_nothing() -> None:
    """With one resource there is no memory, and no call is bound."""
    groups = groups_of(Models({"m": [EAST], "n": [replace(EAST, name="other")]}, [EAST]))
    assert groups.affinity is None
    assert groups.of(call("assistants", "m"))[1] is None


def test_another_key_is_another_resource() -> None:
    """Two keys of one place may be two accounts' and are two resources."""
    groups = groups_of(Models({}, [EAST, replace(EAST, key=Secret("another"))]))
    assert groups.affinity is not None


@pytest.mark.parametrize("operation", ["chat/completions", "responses", "assistants", "embeddings"])
def test_model_is_missing(operation: str) -> None:
    """What runs a model needs one."""
    groups = groups_of(Models({}, [replace(EAST, name="")]))
    with pytest.raises(RequestError) as caught:
        groups.of(call(operation))
    assert caught.value.code == "missing_model"


def test_unknown_model() -> None:
    """A model that is not served is refused, and not remembered."""
    groups = groups_of(Models({"m": [EAST]}, [EAST], "reject"))
    with pytest.raises(UnknownModel):
        groups.of(call("chat/completions", "n"))
    assert groups.members == []


def test_groups_are_remembered() -> None:
    """A model's group is made once, with its turns and the health of what is not configured."""
    groups = two()
    assert groups.of(call("chat/completions", "m"))[0] is groups.of(call("embeddings", "m"))[0]
    assert groups.of(call("chat/completions", "own-name"))[0] is groups.of(call("chat/completions", "own-name"))[0]
    assert [member.deployment.name for member in groups.members] == ["gpt", "gpt", "own-name", "own-name"]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers may name as many models as they like: the first are forgotten, a configured one keeps its turns."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    groups = two()
    group, _ = groups.of(call("chat/completions", "m"))
    for number in range(10):
        groups.of(call("chat/completions", f"name-{number}"))
    assert {one.deployment.name for one in groups.members} == {"gpt", "name-7", "name-8", "name-9"}
    again, _ = groups.of(call("chat/completions", "m"))
    assert again is group


@pytest.mark.parametrize(("length", "remembered"), [(MAX_NAME_CHARS, True), (MAX_NAME_CHARS + 1, False)])
def test_long_names(length: int, remembered: bool) -> None:
    """A name that no deployment has is not kept."""
    groups = two()
    groups.of(call("chat/completions", "x" * length))
    assert bool(groups.members) is remembered


def test_resource_has_a_health_of_its_own() -> None:
    """What a resource says of files says nothing of its models, nor do they keep files from being listed."""
    full = replace(EAST, max_in_flight=1, priority=3, weight=2.0)
    groups = groups_of(Models({"m": [full, WEST]}, [full, WEST]))
    files = groups.of(call("files", method="GET"))[0].only
    chat = groups.of(call("chat/completions", "m"))[0].members
    assert files is not None
    assert files not in chat
    assert files.deployment == replace(EAST, name="")
    assert [one.deployment for one in chat] == [WEST, full]
    chat[1].begin(0.0)
    assert (chat[1].is_full, files.is_full) == (True, False)
    assert files not in groups.members


def test_search_shares_the_health_of_resources() -> None:
    """What is looked for everywhere is asked of the same healths, the default's first, each on its own."""
    groups = two()
    group, at = groups.of(call("files/file-999999", method="GET"))
    assert at is None
    assert [tier.is_search for tier in group.tiers] == [True, True]
    assert [tier.members[0].deployment.name for tier in group.tiers] == ["", ""]
    assert groups.of(call("files/file-888888", method="DELETE"))[0] is group


def test_nothing_is_looked_for_with_a_single_resource() -> None:
    """With one resource an id that nobody knows is that resource's to refuse."""
    groups = groups_of(Models({"m": [EAST], "n": [replace(EAST, name="other")]}, [EAST]))
    group, _ = groups.of(call("files/file-999999", method="GET"))
    assert group.only is not None
    assert not group.tiers[0].is_search


def test_fallbacks() -> None:
    """The models that stand in follow, one behind the other, and say so."""
    groups = two({"m": "small", "small": "last"})
    group, _ = groups.of(call("chat/completions", "m"))
    assert [(tier.fallback, [one.deployment.name for one in tier.members]) for tier in group.tiers] == [
        (None, ["gpt", "gpt"]),
        ("small", ["mini"]),
        ("last", ["last", "last"]),
    ]


def test_fallbacks_in_a_circle() -> None:
    """Models that stand in for each other are there once."""
    groups = two({"m": "small", "small": "m"})
    group, _ = groups.of(call("chat/completions", "m"))
    assert [tier.fallback for tier in group.tiers][:2] == [None, "small"]
    assert len(group.members) == 3
