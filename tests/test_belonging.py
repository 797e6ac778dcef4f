"""What one of two regions has made is asked of that one, twenty times in a row: luck does not help."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from benchmarks.callers import MODEL, PATIENCE_SECONDS
from chat_api.emulator import Outage
from tests.regions import KEY, Regions, regions
from tests.servers import eventually

ROUNDS = 20


@pytest.fixture(scope="module")
def two() -> Iterator[Regions]:
    """A gateway over two regions."""
    with regions(2) as running:
        yield running


def host_of(answer: httpx.Response) -> str:
    """The region that answered."""
    return answer.headers["x-chat-api-deployment"].rpartition("@")[2]


def hosts(two: Regions) -> list[str]:
    """The regions, that of the default deployment first."""
    return [region.base_url.removeprefix("http://") for region in two.all]


def post(two: Regions, path: str, **body: Any) -> httpx.Response:
    """Post JSON, which is answered."""
    answer = two.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def respond(two: Regions, text: str, *, stream: bool, **body: Any) -> tuple[str, str]:
    """Have a response made; its id, and the region that has made it."""
    answer = post(two, "/v1/responses", model=MODEL, input=text, stream=stream, **body)
    found = re.search(r'"(resp_\w+)"', answer.text)
    assert found, answer.text
    assert not stream or "response.completed" in answer.text
    return found[1], host_of(answer)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_response_goes_on_where_it_was_made(two: Regions, stream: bool) -> None:
    """Made anywhere, it is gone on from, read and deleted there, and there only."""
    made_at = []
    for number in range(ROUNDS):
        name, host = respond(two, f"one {number} {stream}", stream=stream)
        second, there = respond(two, f"two {number} {stream}", stream=not stream, previous_response_id=name)
        third, too = respond(two, f"three {number} {stream}", stream=stream, previous_response_id=second)
        shown = two.client.get(f"/v1/responses/{third}")
        deleted = two.client.delete(f"/v1/responses/{name}")
        gone = two.client.get(f"/v1/responses/{name}")

        assert [shown.status_code, deleted.status_code, gone.status_code] == [200, 200, 404]
        assert {there, too, *map(host_of, (shown, deleted, gone))} == {host}
        assert shown.json()["id"] == third
        made_at.append(host)

    assert min(made_at.count(host) for host in hosts(two)) >= ROUNDS // 4


def test_response_of_a_region_that_is_gone_is_not_looked_for_elsewhere() -> None:
    """The caller is told that its region is away, not that there never was such a response; new ones are made."""
    with regions(2) as two:
        made = dict(respond(two, f"here {number}", stream=False)[::-1] for number in range(2))
        first, second = hosts(two)
        two.all[1].emulator.outage = Outage("503")
        for number in range(3):
            away = two.client.post(
                "/v1/responses", json={"model": MODEL, "input": "x", "previous_response_id": made[second]}
            )
            assert away.status_code in (502, 503)
            assert host_of(away) == second
            assert respond(two, f"there {number}", stream=False, previous_response_id=made[first])[1] == first
            assert respond(two, f"new {number}", stream=False)[1] == first
        two.all[1].emulator.outage = None
        back = {"model": MODEL, "input": "y", "previous_response_id": made[second]}
        assert eventually(lambda: two.client.post("/v1/responses", json=back).status_code == 200, PATIENCE_SECONDS)


def test_file_and_what_is_made_of_it_are_in_one_region(two: Regions) -> None:
    """A file is found again by its id, and so are a batch, a vector store and a fine-tuning job that name it."""
    default = hosts(two)[0]
    for number in range(ROUNDS):
        content = json.dumps({"round": number}).encode()
        form = {"file": (f"{number}.jsonl", content)}
        uploaded = two.client.post("/v1/files", files=form, data={"purpose": "batch"})
        file = uploaded.json()["id"]
        kept = two.client.get(f"/v1/files/{file}/content")
        batch = post(two, "/v1/batches", input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
        store = post(two, "/v1/vector_stores", file_ids=[file], name=f"store {number}")
        job = post(two, "/v1/fine_tuning/jobs", model=MODEL, training_file=file, suffix=f"s{number}")
        ways = [
            two.client.get(path)
            for path in (
                f"/v1/files/{file}",
                f"/v1/batches/{batch.json()['id']}",
                f"/v1/vector_stores/{store.json()['id']}",
                f"/v1/fine_tuning/jobs/{job.json()['id']}",
            )
        ]

        assert kept.content == content
        assert [way.status_code for way in ways] == [200] * 4
        assert {host_of(one) for one in (uploaded, kept, batch, store, job, *ways)} == {default}


def test_thread_is_found_again(two: Regions) -> None:
    """A thread, and the messages in it."""
    for number in range(ROUNDS):
        thread = post(two, "/v1/threads").json()["id"]
        said = post(two, f"/v1/threads/{thread}/messages", role="user", content=f"word {number}")
        heard = two.client.get(f"/v1/threads/{thread}/messages")
        gone = two.client.delete(f"/v1/threads/{thread}")

        assert heard.json()["data"][0]["id"] == said.json()["id"]
        assert {host_of(one) for one in (said, heard, gone)} == {hosts(two)[0]}
        assert gone.status_code == 200


def test_unknown_id_is_asked_of_all_regions() -> None:
    """Whoever is asked first, all of them are, and then there is none; nobody is blamed for it."""
    with regions(2) as two:
        for _ in range(ROUNDS):
            for path in ("responses/resp_unknown123", "files/file-unknown123", "batches/batch_unknown123"):
                answer = two.client.get(f"/v1/{path}")

                assert answer.status_code == 404
                assert answer.headers["x-chat-api-attempts"] == "2"
        assert {row["state"] for row in two.status().values()} == {"available"}


def test_what_another_process_has_made_is_found() -> None:
    """A file that this gateway knows nothing of is looked for, once, and from then on its region is known."""
    with regions(2) as two:
        for number in range(ROUNDS):
            file = made_directly(two, 1, f"other {number}")
            found = [two.client.get(f"/v1/files/{file}") for _ in range(2)]

            assert [one.status_code for one in found] == [200, 200]
            assert {host_of(one) for one in found} == {hosts(two)[1]}
            assert [one.headers["x-chat-api-attempts"] for one in found] == ["2", "1"]


def made_directly(two: Regions, number: int, text: str) -> str:
    """A file that is uploaded to a region past the gateway."""
    url, key = f"{two.all[number].base_url}/openai/v1/files", {"api-key": f"{KEY}{number}"}
    form = {"file": (f"{text}.jsonl", b"{}")}
    file: str = httpx.post(url, headers=key, files=form, data={"purpose": "batch"}).json()["id"]
    return file


def test_id_that_an_answer_repeats_is_not_taken_for_its_own(two: Regions) -> None:
    """A caller may name a file in a response's metadata; the file is where it was all the same."""
    for number in range(ROUNDS):
        file = made_directly(two, 0, f"named {number}")
        respond(two, f"named {number}", stream=bool(number % 2), metadata={"file_id": file})
        shown = two.client.get(f"/v1/files/{file}")

        assert (shown.status_code, host_of(shown)) == (200, hosts(two)[0])
