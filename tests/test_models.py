"""Which deployments answer for a model, what an unknown one gets, and the table as OpenAI lists models."""

from dataclasses import replace
from typing import Any

import pytest

from chat_api.errors import RequestError
from chat_api.models import MAX_LISTED, Models, UnknownModel
from chat_api.types import Deployment, Secret

A = Deployment("a", "https://r.openai.azure.com", "2024-10-21", Secret("k"))
B = replace(A, name="b", base_url="https://s.openai.azure.com")
C = replace(A, name="c")
NAMELESS = replace(A, name="")
SERVER = Deployment("", "http://localhost:8000", "v1", None, "openai")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("gpt", [A, B], id="model"),
        pytest.param("small", [B], id="another-model"),
        pytest.param("c", [C, replace(C, base_url=B.base_url)], id="deployment-of-two-resources"),
        pytest.param("d", [replace(A, name="d")], id="default-deployment"),
        pytest.param("e", [replace(A, name="e")], id="deployment-that-is-not-in-the-table"),
        pytest.param("GPT", [replace(A, name="GPT")], id="names-are-exact"),
        pytest.param(None, [replace(A, name="d")], id="none"),
        pytest.param("", [replace(A, name="d")], id="empty"),
    ],
)
def test_group(model: str | None, expected: list[Deployment]) -> None:
    """A model has its deployments, a deployment's own name counts too, and any other is one at the default resource."""
    models = Models({"gpt": [A, B], "small": [B], "mini": [C, replace(C, base_url=B.base_url)]}, [replace(A, name="d")])
    assert list(models.group(model)) == expected


def test_deployment_by_its_name() -> None:
    """Who names a deployment is answered by that one, not by another of its group."""
    models = Models({"small": [B], "gpt": [A, B]}, [A])
    assert list(models.group("b")) == [B]


@pytest.mark.parametrize(
    ("unknown", "expected"),
    [
        pytest.param("pass", [replace(A, name="x")], id="pass"),
        pytest.param("default", [A], id="default"),
    ],
)
def test_unknown_model(unknown: str, expected: list[Deployment]) -> None:
    """A model outside the table names a deployment, or gets the default one."""
    assert list(Models({"gpt": [B]}, [A], unknown).group("x")) == expected


def test_rejected_model() -> None:
    """Where only the table is served any other model is a 404 that says what it has; the default one is known."""
    models = Models({"gpt": [B]}, [A], "reject")
    assert list(models.group("a")) == [A]
    with pytest.raises(UnknownModel, match='"x" is not served here; it takes gpt, a') as caught:
        models.group("x")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        pytest.param([], "it takes none", id="none"),
        pytest.param([f"m{number:02}" for number in range(MAX_LISTED)], "m18, m19", id="all"),
        pytest.param([f"m{number:02}" for number in range(MAX_LISTED + 1)], "m19, …", id="too-many"),
    ],
)
def test_message_is_bounded(names: list[str], words: str) -> None:
    """The answer to an unknown model repeats neither a long name nor a long table."""
    with pytest.raises(UnknownModel) as caught:
        Models({name: [A] for name in names}, [NAMELESS], "reject").group("x" * 10_000)
    assert caught.value.message.endswith(words)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("groups", "default", "expected"),
    [
        pytest.param({}, [A], [A], id="the-default-deployment"),
        pytest.param({"a": [B]}, [A], [B], id="mapped"),
        pytest.param({"gpt": [replace(B, name="a")]}, [A], [replace(B, name="a")], id="deployment-of-a-group"),
        pytest.param(
            {}, [SERVER, replace(SERVER, key=Secret("k"))], [SERVER, replace(SERVER, key=Secret("k"))], id="server"
        ),
    ],
)
def test_default_group(
    groups: dict[str, list[Deployment]], default: list[Deployment], expected: list[Deployment]
) -> None:
    """A call that names no model gets the default model's deployments, which the table may know better."""
    assert list(Models(groups, default).group(None)) == expected
    assert list(Models(groups, default, "default").group("unknown")) == expected


@pytest.mark.parametrize(("model", "unknown"), [(None, "pass"), ("", "reject"), ("x", "default")])
def test_no_default(model: str | None, unknown: str) -> None:
    """Without a default model a call has to name one, and is told so."""
    with pytest.raises(RequestError, match="set DEPLOYMENT_NAME on the server") as caught:
        Models({"gpt": [A]}, [NAMELESS], unknown).group(model)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "missing_model", "model")


def test_several_keys() -> None:
    """A server under several keys stays so for whatever model is asked for."""
    keyed = [replace(SERVER, key=Secret(key)) for key in ("k1", "k2")]
    assert list(Models({}, keyed).group("m")) == [replace(one, name="m") for one in keyed]


def test_resource() -> None:
    """What concerns no model goes to the default deployment's resource."""
    assert list(Models({"gpt": [B]}, [A]).resource()) == [A]


@pytest.mark.parametrize(
    ("groups", "default", "expected"),
    [
        pytest.param({}, A, ["a"], id="default-only"),
        pytest.param({}, NAMELESS, [], id="nothing"),
        pytest.param({"gpt": [B], "a": [A]}, A, ["gpt", "a"], id="table"),
        pytest.param({"gpt": [A]}, A, ["gpt"], id="default-under-another-name"),
        pytest.param({"gpt": [B]}, A, ["gpt", "a"], id="default-beside-the-table"),
    ],
)
def test_names(groups: dict[str, list[Deployment]], default: Deployment, expected: list[str]) -> None:
    """The models are those of the table in their order, and the default deployment where no model stands for it."""
    assert Models(groups, [default]).names == expected


def test_deployments() -> None:
    """Every deployment can be looked at, the default one first."""
    assert list(Models({"gpt": [B]}, [A]).deployments) == [A, B]


@pytest.mark.parametrize(
    ("groups", "default", "expected"),
    [
        pytest.param({}, SERVER, True, id="server"),
        pytest.param({"gpt": [A]}, SERVER, False, id="server-with-a-mapping"),
        pytest.param({}, A, False, id="azure"),
    ],
)
def test_relays_list(groups: dict[str, list[Deployment]], default: Deployment, expected: bool) -> None:
    """Only a server whose models are not mapped is asked for its own list; Azure lists no deployments."""
    assert Models(groups, [default]).relays_list is expected


def entry_of(entry: dict[str, Any]) -> dict[str, Any]:
    """What today's OpenAI has in a model."""
    return {name: entry[name] for name in ("id", "object", "created", "owned_by")}


def test_listing() -> None:
    """The list has OpenAI's shape, each entry with what chat UIs of 2023 read."""
    listing = Models({"gpt": [A]}, [B]).listing(7)
    assert listing["object"] == "list"
    assert [entry_of(entry) for entry in listing["data"]] == [
        {"id": "gpt", "object": "model", "created": 7, "owned_by": "chat-api"},
        {"id": "b", "object": "model", "created": 7, "owned_by": "chat-api"},
    ]
    assert [(entry["root"], entry["parent"], len(entry["permission"])) for entry in listing["data"]] == [
        ("gpt", None, 1),
        ("b", None, 1),
    ]


def test_entry() -> None:
    """One model is described as in the list; one that is not in it is a 404."""
    models = Models({"gpt": [A]}, [B])
    assert models.entry("gpt", 7) == models.listing(7)["data"][0]
    with pytest.raises(UnknownModel, match='"x" is not in the list; it has gpt, b') as caught:
        models.entry("x", 7)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("model", "unknown", "expected"),
    [
        pytest.param("gpt", "pass", "mini", id="model"),
        pytest.param("mini", "pass", "a", id="its-fallback"),
        pytest.param("b", "pass", None, id="deployment-of-a-model"),
        pytest.param("x", "pass", None, id="unknown-is-a-deployment"),
        pytest.param("x", "reject", None, id="unknown-is-refused"),
        pytest.param("x", "default", "small", id="unknown-is-the-default"),
        pytest.param("b", "default", None, id="deployment-that-is-known"),
        pytest.param("old", "default", "gpt", id="unknown-with-a-fallback-of-its-own"),
        pytest.param("a", "pass", "small", id="default"),
        pytest.param("d", "pass", "small", id="default-under-its-second-name"),
        pytest.param(None, "pass", "small", id="none"),
        pytest.param("", "reject", "small", id="empty"),
        pytest.param("last", "default", None, id="end-that-is-unknown"),
    ],
)
def test_fallback_of(model: str | None, unknown: str, expected: str | None) -> None:
    """A model falls back on its own fallback; what gets the default model's deployments on the default's."""
    fallbacks = {"gpt": "mini", "mini": "a", "old": "gpt", "a": "small", "small": "last"}
    default = [A, replace(A, name="d", base_url=B.base_url)]
    assert Models({"gpt": [B], "mini": [C]}, default, unknown, fallbacks).fallback_of(model) == expected


@pytest.mark.parametrize("model", [None, "", "gpt", "x", "a"])
@pytest.mark.parametrize("unknown", ["pass", "default", "reject"])
def test_no_fallback(model: str | None, unknown: str) -> None:
    """Where none is configured there is none, with a default model or without."""
    assert Models({"gpt": [B]}, [A], unknown).fallback_of(model) is None
    assert Models({"gpt": [B]}, [NAMELESS], unknown).fallback_of(model) is None


@pytest.mark.parametrize("unknown", ["pass", "default", "reject"])
@pytest.mark.parametrize("start", [None, "a", "gpt", "b", "x", "y", "z"])
def test_fallbacks_come_to_an_end(unknown: str, start: str | None) -> None:
    """Whoever goes from fallback to fallback comes to a last one, unknown models among them or not."""
    models = Models({"gpt": [B]}, [A], unknown, {"a": "x", "x": "y", "gpt": "z"})
    seen, model = 0, start
    while (model := models.fallback_of(model)) is not None:
        seen += 1
        assert seen < 10


TABLE: dict[str, list[Deployment]] = {"gpt": [replace(A, name="d-gpt"), replace(B, name="D-gpt-2")], "small": [B, C]}


@pytest.mark.parametrize(
    ("model", "unknown", "expected"),
    [
        pytest.param("gpt", "pass", "gpt", id="model"),
        pytest.param("GPT", "pass", "gpt", id="model-in-other-letters"),
        pytest.param("d-gpt", "pass", "gpt", id="deployment"),
        pytest.param("D-GPT", "pass", "gpt", id="deployment-in-other-letters"),
        pytest.param("d-gpt-2", "pass", "gpt", id="second-deployment-in-other-letters"),
        pytest.param("b", "pass", "small", id="deployment-of-another"),
        pytest.param("x", "pass", "x", id="unknown"),
        pytest.param("X", "pass", "X", id="unknown-in-other-letters"),
        pytest.param("x", "default", "a", id="unknown-is-the-default"),
        pytest.param("D-GPT", "default", "gpt", id="deployment-is-no-unknown"),
        pytest.param("a", "pass", "a", id="default"),
        pytest.param("e", "pass", "a", id="second-name-of-the-default"),
        pytest.param(None, "pass", "a", id="none"),
        pytest.param("", "reject", "a", id="empty"),
    ],
)
def test_counted_as(model: str | None, unknown: str, expected: str) -> None:
    """However a model is called, by its deployments' names or in other letters, it is counted under one name."""
    default = [A, replace(A, name="e", base_url=B.base_url)]
    assert Models(TABLE, default, unknown).counted_as(model) == expected


@pytest.mark.parametrize(
    ("default", "model", "unknown", "expected"),
    [
        pytest.param("d-gpt", None, "pass", "gpt", id="none"),
        pytest.param("d-gpt", "d-gpt", "pass", "gpt", id="by-its-name"),
        pytest.param("D-Gpt", "x", "default", "gpt", id="unknown"),
        pytest.param("gpt", None, "pass", "gpt", id="default-is-a-model"),
        pytest.param("", None, "pass", "", id="no-default"),
        pytest.param("", "x", "pass", "x", id="no-default-but-a-name"),
    ],
)
def test_default_is_counted_as(default: str, model: str | None, unknown: str, expected: str) -> None:
    """What goes to the default deployment is counted as the model that it answers for."""
    assert Models(TABLE, [replace(A, name=default)], unknown).counted_as(model) == expected


def test_deployment_of_two_models_is_counted_as_the_first() -> None:
    """A deployment's name stands for the first model that it answers for; a model of that name for itself."""
    models = Models({"one": [A], "two": [A], "b": [C], "three": [B]}, [NAMELESS])
    assert [models.counted_as(name) for name in ("A", "a", "B", "c")] == ["one", "one", "b", "b"]


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        pytest.param(None, ["gpt", "small", "a"], id="all"),
        pytest.param({"small", "other"}, ["small"], id="some"),
        pytest.param(frozenset(), [], id="none"),
    ],
)
def test_listing_of_what_is_allowed(allowed: set[str] | None, names: list[str]) -> None:
    """A caller's list has the models that it may use, and no other."""
    assert [entry["id"] for entry in Models(TABLE, [A]).listing(7, allowed)["data"]] == names
