"""The conversation log of real processes: nobody is held up by a full disk, and little is lost by a kill."""

import json
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.conversations import until
from tests.processes import CLI, ROOT, Process, process

LISTENS = r"listens at (http://127\.0\.0\.1:\d+)"


def settings_of(folder: Path) -> dict[str, str]:
    """A process that logs there; the emulator answers."""
    return {"LOG_CHAT": "true", "LOG_DIR": str(folder / "log"), "USAGE_FILE": str(folder / "usage.json")}


def client_of(running: Process) -> httpx.Client:
    """A client of a process, once it listens."""
    return httpx.Client(base_url=running.wait_for(LISTENS)[1], timeout=20)


def converted(folder: Path) -> tuple[list[str], str]:
    """The request ids of the records that the command reads, and what it says of the rest."""
    words = [CLI, "log", "convert", "--format", "jsonl", "--dir", str(folder / "log")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    return [json.loads(line)["request_id"] for line in done.stdout.splitlines()], done.stderr


def is_longer(these: list[str], count: int) -> bool:
    """Whether there are more than so many."""
    return len(these) > count


def test_kill_costs_the_last_records_only(tmp_path: Path) -> None:
    """What a killed process had written is read again; a torn line is told of and skipped; the next process goes on."""
    answered: list[str] = []

    def ask(client: httpx.Client) -> None:
        try:
            while True:
                headers = client.post("/v1/gpt/chat", json={"prompt": "word " * 200}).headers
                answered.append(headers["x-chat-api-request-id"])
        except httpx.TransportError:
            pass

    for _ in range(2):
        with process(CLI, "serve", **settings_of(tmp_path)) as running, client_of(running) as client:
            assert f"Conversations are logged in {tmp_path / 'log'}." in running.output
            asks = threading.Thread(target=ask, args=(client,))
            before = len(answered)
            asks.start()
            until(partial(is_longer, answered, before + 100))
            running.signal(signal.SIGKILL)
            asks.join()

    (file,) = (tmp_path / "log").iterdir()
    ids, said = converted(tmp_path)
    assert len(set(ids) & set(answered)) > 100
    assert len(set(ids) - set(answered)) <= 2  # written, but not answered yet
    assert said.count("; skipped\n") <= 2

    whole = file.read_bytes().rstrip(b"\n")
    file.write_bytes(whole + b'\n{"time":"2026-')
    lines = whole.count(b"\n") + 2
    again, said = converted(tmp_path)
    assert again == ids
    assert f"{file}:{lines}: it is no JSON; it may be torn; skipped" in said
    assert f"read: {len(ids)}." in said


def test_full_disk_costs_records_and_no_answer(tmp_path: Path) -> None:
    """Where no more can be written calls are answered; `/status` has what waits, the log says it once."""
    limited = ("sh", "-c", 'ulimit -f 64 && exec "$0" serve', CLI)
    with (
        process(*limited, **settings_of(tmp_path), PYTHONDONTWRITEBYTECODE="1") as running,
        client_of(running) as client,
    ):

        def state() -> Any:
            return client.get("/status").json()["conversation_log"]

        for _ in range(20):
            assert client.post("/v1/gpt/chat", json={"prompt": "word " * 1000}).is_success
        until(lambda: state()["failing"])
        assert state()["written"] + state()["queued"] == 20
        assert client.post("/v1/gpt/chat", json={"prompt": "hello"}).is_success
        running.signal(signal.SIGTERM)
        assert running.wait() == 0

    assert running.output.count("conversations cannot be logged in") == 1
    assert "conversations were not logged" in running.output
    ids, said = converted(tmp_path)
    assert 0 < len(ids) < 20
    assert said == ""
