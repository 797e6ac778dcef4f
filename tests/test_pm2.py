"""The real PM2 runs the gateway: start, reload, stop, bad settings."""

import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT
from tests.servers import eventually

pytestmark = pytest.mark.alone  # it looks at what happens when

LOCAL = ROOT / "tests" / "node" / "node_modules" / ".bin" / "pm2"
PM2 = str(LOCAL) if LOCAL.exists() else shutil.which("pm2")
if PM2 is None and os.environ.get("CI") != "true":
    pytest.skip("pm2 is not installed: npm ci --prefix tests/node", allow_module_level=True)

Run = Callable[..., str]


@pytest.fixture
def pm2(tmp_path: Path) -> Iterator[Run]:
    """Runs a pm2 command, with a daemon of its own that ends with the test."""

    def run(*command: str, **environ: str) -> str:
        values = {**os.environ, "PM2_HOME": str(tmp_path / "pm2"), "HTTP_PORT": "0", **environ}
        done = subprocess.run([str(PM2), *command], cwd=ROOT, env=values, capture_output=True, text=True, check=True)
        return done.stdout

    try:
        yield run
    finally:
        run("kill")


def described(pm2: Run) -> dict[str, Any]:
    """What PM2 says of the process."""
    apps = json.loads(pm2("jlist").rpartition("\n")[2])
    assert [app["name"] for app in apps] == ["chat-api"]
    found: dict[str, Any] = apps[0]
    return found


def ports(tmp_path: Path) -> list[int]:
    """The ports that it has listened on, latest last."""
    return [int(port) for port in re.findall(r"listens at http://127\.0\.0\.1:(\d+)", logged(tmp_path, "out"))]


def logged(tmp_path: Path, stream: str) -> str:
    """What it has printed to a stream, "out" or "error"."""
    return "".join(log.read_text() for log in (tmp_path / "pm2" / "logs").glob(f"chat-api-{stream}*.log"))


def stream(port: int) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A stream that has begun."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = b"model=fault-slow&stream=true&prompt=" + b"+".join([b"word"] * 20)
    connection.request("POST", "/v1/gpt/chat", body, {"content-type": "application/x-www-form-urlencoded"})
    return connection, connection.getresponse()


def test_start_reload_and_stop_lose_no_stream(pm2: Run, tmp_path: Path) -> None:
    """Streams that are longer than PM2's own patience survive a reload and a stop; the process then stays stopped."""
    pm2("start", "ecosystem.config.js")
    assert eventually(lambda: len(ports(tmp_path)) == 1, seconds=20)
    for action, listening in (("reload", 2), ("stop", 2)):
        connection, response = stream(ports(tmp_path)[-1])
        with closing(connection), closing(response):
            begun = response.read1(100)
            pm2(action, "chat-api")  # returns once the old process has ended
            body = begun + response.read()
        assert body.endswith(b"data: [DONE]\n\n"), action
        assert body.count(b"word") == 20
        assert eventually(lambda expected=listening: len(ports(tmp_path)) == expected, seconds=20)  # type: ignore[misc]

    app = described(pm2)
    assert app["pm2_env"]["status"] == "stopped"
    assert app["pm2_env"]["exit_code"] == 0
    assert app["pm2_env"]["exec_mode"] == "fork_mode"


def test_bad_settings_are_not_started_again(pm2: Run, tmp_path: Path) -> None:
    """Exit code 3 stops it for good, with the reason as the last thing in the log."""
    pm2("start", "ecosystem.config.js", HTTP_PORT="eighty")
    assert eventually(lambda: described(pm2)["pm2_env"]["status"] == "stopped", seconds=20)

    app = described(pm2)
    assert app["pm2_env"]["exit_code"] == 3
    assert app["pm2_env"]["restart_time"] == 0
    assert logged(tmp_path, "error").startswith("One setting needs attention:\n  HTTP_PORT is")


@pytest.mark.parametrize(
    ("environ", "file", "expected"),
    [
        ("", None, "35000"),
        ("120", None, "125000"),
        ("", "KEY=x\nDRAIN_TIMEOUT=60\n", "65000"),
        ("120", "DRAIN_TIMEOUT=60\n", "125000"),
        ("", "DRAIN_TIMEOUT=\n", "35000"),
        ("0", None, "5000"),
        ("", "DRAIN_WAIT=2.5\n", "37500"),
        ("", "DRAIN_WAIT=10\nDRAIN_TIMEOUT=60\n", "75000"),
    ],
)
def test_kill_timeout_is_longer_than_the_drain(tmp_path: Path, environ: str, file: str | None, expected: str) -> None:
    """PM2 waits for the wait before the drain, the drain and some, wherever they are set."""
    shutil.copy(ROOT / "ecosystem.config.js", tmp_path)
    if file is not None:
        (tmp_path / ".env").write_text(file)
    show = "console.log(require('./ecosystem.config.js').apps[0].kill_timeout)"
    values = {**os.environ, "DRAIN_TIMEOUT": environ}
    done = subprocess.run(["node", "-e", show], cwd=tmp_path, env=values, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == expected
