"""What an emulated resource stores: it comes back from the resource that made it, and another one has none of it."""

import re
from typing import Any

import httpx2 as httpx
import pytest

from chat_api.emulator import Emulator
from chat_api.emulator.found import Found
from chat_api.emulator.resource import Resource
from chat_api.emulator.routes import route_of
from tests.emulators import emulated

DATE = "?api-version=2025-03-01-preview"
FILE = {"file": ("a.jsonl", b"{}\n", "application/jsonl")}
RESOURCES = [
    pytest.param(("East US", ""), ("Sweden Central", ""), id="regions"),
    pytest.param(("East US", "a"), ("East US", "b"), id="names"),
    pytest.param(("Emulated", ""), ("East US", ""), id="default"),
]


def post(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """The thing that the resource makes of a body."""
    made: dict[str, Any] = client.post(f"/openai/{path}{DATE}", json=body).raise_for_status().json()
    return made


def upload(client: httpx.Client) -> str:
    """The id of a file."""
    made = client.post(f"/openai/files{DATE}", data={"purpose": "fine-tune"}, files=FILE).raise_for_status()
    return str(made.json()["id"])


def things_of(client: httpx.Client) -> list[str]:
    """The paths of one thing of each kind, all of them new."""
    file = upload(client)
    thread = post(client, "threads")["id"]
    return [
        f"files/{file}",
        f"files/{file}/content",
        f"threads/{thread}",
        f"threads/{thread}/messages",
        f"vector_stores/{post(client, 'vector_stores', name='v')['id']}",
        f"fine_tuning/jobs/{post(client, 'fine_tuning/jobs', model='gpt-4o', training_file=file)['id']}",
        f"responses/{post(client, 'responses', model='gpt-4o', input='hi')['id']}",
        "batches/"
        + post(client, "batches", input_file_id=file, endpoint="/v1/responses", completion_window="24h")["id"],
    ]


@pytest.mark.parametrize(("here", "there"), RESOURCES)
def test_things_are_only_where_they_were_made(here: tuple[str, str], there: tuple[str, str]) -> None:
    """Equal things have other ids at another resource, which answers 404 for those that are not its own."""
    emulators = [Emulator(region=region, name=name) for region, name in (here, there)]
    with emulated(emulators[0]) as one, emulated(emulators[1]) as other:
        paths, others = things_of(one), things_of(other)
        found = [[client.get(f"/openai/{path}{DATE}") for path in paths] for client in (one, other)]

    assert set(paths).isdisjoint(others)
    assert {answer.status_code for answer in found[0]} == {200}
    assert {answer.status_code for answer in found[1]} == {404}
    assert {answer.json()["error"]["type"] for answer in found[1]} == {"invalid_request_error"}


def test_response_goes_on_only_where_it_was_made() -> None:
    """The response before is known to its resource, and 400 at another; a stream tells the id it is stored under."""
    with emulated(Emulator(region="East US")) as one, emulated(Emulator(region="Japan East")) as other:
        first = post(one, "responses", model="gpt-4o", input="hi")["id"]
        body = {"model": "gpt-4o", "input": "on", "previous_response_id": first}
        answers = [client.post("/openai/v1/responses", json=body) for client in (one, other)]
        events = one.post("/openai/v1/responses", json={**body, "stream": True}).text
        told = set(re.findall(r'"id":"(resp_\w+)"', events))
        stored = [one.get(f"/openai/v1/responses/{name}").status_code for name in told]

    assert [answer.status_code for answer in answers] == [200, 400]
    assert answers[1].json()["error"]["code"] == "previous_response_not_found"
    assert stored == [200]


def test_thread_keeps_its_messages() -> None:
    """Messages are listed newest first until their thread is deleted; the first may come with it."""
    with emulated(Emulator()) as client:
        thread = post(client, "threads", messages=[{"role": "user", "content": "one"}], metadata={"a": "b"})
        path = f"threads/{thread['id']}"
        message = post(client, f"{path}/messages", role="user", content="two")
        listed = client.get(f"/openai/{path}/messages{DATE}").json()["data"]
        gone = client.delete(f"/openai/{path}{DATE}").json()
        after = [client.get(f"/openai/{path}{end}{DATE}").status_code for end in ("", "/messages")]
        after.append(client.post(f"/openai/{path}/messages{DATE}", json={"role": "user", "content": "x"}).status_code)

    assert (thread["object"], thread["metadata"]) == ("thread", {"a": "b"})
    assert [one["content"][0]["text"]["value"] for one in listed] == ["two", "one"]
    assert (message["thread_id"], message["object"]) == (thread["id"], "thread.message")
    assert gone == {"deleted": True, "id": thread["id"], "object": "thread.deleted"}
    assert after == [404, 404, 404]


def test_two_equal_things_are_two() -> None:
    """Threads that are made of nothing have ids of their own, and so have equal stores; the newest is listed first."""
    with emulated(Emulator()) as client:
        threads = {client.post(f"/openai/threads{DATE}", content=body).json()["id"] for body in (b"", b"{}", b"{}")}
        stores = [post(client, "vector_stores", name="same") for _ in "ab"]
        listed = client.get("/openai/v1/vector_stores").json()["data"]
        gone = client.delete(f"/openai/v1/vector_stores/{stores[0]['id']}").json()
        left = client.get("/openai/v1/vector_stores").json()["data"]

    assert len(threads) == 3
    assert listed == stores[::-1]
    assert (gone["object"], left) == ("vector_store.deleted", stores[1:])


def test_jobs_wait() -> None:
    """A fine-tuning job of a file that is there is pending, and is listed."""
    with emulated(Emulator()) as client:
        file = upload(client)
        store = post(client, "vector_stores", file_ids=[file])
        job = post(client, "fine_tuning/jobs", model="gpt-4o", training_file=file, suffix="s")
        listed = client.get("/openai/v1/fine_tuning/jobs").json()["data"]

    assert (job["object"], job["status"], job["training_file"]) == ("fine_tuning.job", "pending", file)
    assert listed == [job]
    assert store["file_counts"]["total"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("fine_tuning/jobs", {"model": "gpt-4o"}, 400, None),
        ("fine_tuning/jobs", {"training_file": "file-none"}, 400, None),
        ("fine_tuning/jobs", {"model": "gpt-4o", "training_file": "file-none"}, 400, "training_file"),
        ("vector_stores", {"file_ids": ["file-none"]}, 404, "file_ids"),
        ("vector_stores", {"file_ids": "file-none"}, 400, "file_ids"),
        ("threads", {"messages": [{"role": "user"}]}, 400, "messages"),
        ("threads", {"messages": 1}, 400, "messages"),
        ("threads/none/messages", {"role": "user", "content": "x"}, 404, None),
    ],
)
def test_thing_that_cannot_be_made(path: str, body: dict[str, Any], status: int, param: str | None) -> None:
    """What lacks something, or names a file or thread that is not there, is refused."""
    make = Resource().maker(path)
    assert make is not None
    found: Found = make(body)

    assert found.status == status
    assert (f'"param":"{param}"' if param else '"param":null').encode() in found.body


def test_message_needs_its_members() -> None:
    """A message in a thread that is there has a role and a content."""
    with emulated(Emulator()) as client:
        thread = post(client, "threads")["id"]
        answer = client.post(f"/openai/threads/{thread}/messages{DATE}", json={"role": "user"})

    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "has"),
    [
        (b"/openai/threads", True),
        (b"/openai/v1/threads", False),
        (b"/openai/v1/vector_stores/x", True),
        (b"/openai/v1/fine_tuning/jobs", True),
        (b"/openai/deployments/gpt-4o/threads", False),
    ],
)
def test_threads_are_of_the_classic_api_only(path: bytes, has: bool) -> None:
    """The v1 API serves vector stores and fine-tuning, and no threads; nothing of it belongs to a deployment."""
    route = route_of(path)

    assert route is not None
    assert route.has_things is has


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "fine_tuning"), ("DELETE", "fine_tuning/jobs/x"), ("PUT", "threads/x"), ("GET", "threads")],
)
def test_what_is_not_there(method: str, path: str) -> None:
    """Whatever else is asked of them is no path of Azure's."""
    assert Resource().answer(method, path, is_v1=False) is None
