"""Starting, serving and stopping, as real processes."""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trustme

from chat_api.app import create_app
from chat_api.server import server_config
from chat_api.settings import load
from tests.processes import CLI, PYTHON_APP, ROOT, process
from tests.servers import eventually

pytestmark = pytest.mark.alone  # it looks at what happens when

UVICORN = (sys.executable, "-m", "uvicorn", "app:app", "--port", "0")
LISTENS = r"listens at https?://127\.0\.0\.1:(\d+)"


class Poster:
    """Posts forms, and closes every connection at the end of the test."""

    def __init__(self) -> None:
        self.stack = ExitStack()

    def __call__(self, port: int, body: bytes) -> "Posted":
        connection = self.stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)))
        headers = {"content-type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/v1/gpt/chat", body.replace(b" ", b"+"), headers)
        return Posted(connection, self.stack)


class Posted:
    """A form that has been sent, nothing of the answer being read."""

    def __init__(self, connection: http.client.HTTPConnection, stack: ExitStack) -> None:
        self._connection = connection
        self._stack = stack

    def getresponse(self) -> http.client.HTTPResponse:
        """The answer, once its head is there."""
        return self._stack.enter_context(closing(self._connection.getresponse()))


@pytest.fixture
def post() -> Iterator[Poster]:
    """Posts a form to a port."""
    poster = Poster()
    with poster.stack:
        yield poster


@pytest.mark.parametrize(
    ("command", "listens"),
    [
        pytest.param(PYTHON_APP, LISTENS, id="python app.py"),
        pytest.param((CLI, "serve"), LISTENS, id="chat-api serve"),
        pytest.param(UVICORN, r"Uvicorn running on http://127\.0\.0\.1:(\d+)", id="uvicorn app:app"),
    ],
)
def test_every_way_to_serve_answers_from_the_emulator(command: tuple[str, ...], listens: str, post: Poster) -> None:
    """Without any setting each of the three commands answers a prompt."""
    with process(*command) as server:
        connection = post(int(server.wait_for(listens)[1]), b"prompt=hello")

        assert b'"text":"You said: \\"hello\\"."' in connection.getresponse().read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [PYTHON_APP, (CLI, "serve")], ids=["python app.py", "chat-api serve"])
def test_stop_lets_a_stream_finish_refuses_new_connections_and_exits_0(
    command: tuple[str, ...], number: signal.Signals, post: Poster
) -> None:
    """SIGTERM or SIGINT in mid-stream loses no event."""
    with process(*command) as server:
        port = int(server.wait_for(LISTENS)[1])
        response = post(port, b"model=fault-slow&stream=true&prompt=one two three four five six").getresponse()
        begun = response.read1(100)
        server.signal(number)
        refused = refuses(port)
        body = (begun + response.read()).decode()
        code = server.wait()

    events = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert refused
    assert len(events) == 12  # prompt filter, role, eight words, finish, [DONE]
    assert events[-1] == "[DONE]"
    assert code == 0
    assert "Traceback" not in server.output


def test_uvicorn_that_listens_elsewhere_does_not_lend_the_key(post: Poster) -> None:
    """Told another address than the settings know of, the server answers on loopback addresses only all the same."""
    with process(*UVICORN, "--host", "0.0.0.0") as server:
        port = int(server.wait_for(r"Uvicorn running on http://0\.0\.0\.0:(\d+)")[1])
        here = post(port, b"prompt=x").getresponse().status

    assert here == 200
    assert "No ENDPOINT is set: the built-in Azure OpenAI emulator answers." in server.output


@pytest.mark.parametrize("command", [PYTHON_APP, (CLI, "serve")], ids=["python app.py", "chat-api serve"])
def test_options_that_are_none_are_refused(command: tuple[str, ...]) -> None:
    """An option that is not there is told, not swallowed."""
    with process(*command, "--prot", "8405") as server:
        assert server.wait() == 2
    assert "No such option" in server.output


def test_uvicorn_itself_lets_a_stream_finish(post: Poster) -> None:
    """sse-starlette does not cut streams under a plain uvicorn either; the exit code is uvicorn's own."""
    with process(*UVICORN) as server:
        port = int(server.wait_for(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")[1])
        response = post(port, b"model=fault-slow&stream=true&prompt=one two three four five six").getresponse()
        begun = response.read1(100)
        server.signal(signal.SIGTERM)
        body = begun + response.read()
        server.wait()

    assert body.endswith(b"data: [DONE]\n\n")


def test_what_outlasts_the_drain_timeout_is_cut(post: Poster) -> None:
    """After DRAIN_TIMEOUT a stream is cut without its end, a waiting call is told 503, and the exit code is 0."""
    with process(*PYTHON_APP, DRAIN_TIMEOUT="1") as server:
        port = int(server.wait_for(LISTENS)[1])
        stream = post(port, b"model=fault-endless&stream=true&prompt=x").getresponse()
        begun = stream.read1(100)
        waiting = post(port, b"model=fault-hang&prompt=x")
        answered = post(port, b"prompt=x").getresponse().status  # so the call before has surely arrived
        server.signal(signal.SIGTERM)
        with pytest.raises(http.client.IncompleteRead):
            stream.read()
        told = waiting.getresponse()
        code = server.wait()

    assert (begun[:6], answered) == (b"data: ", 200)
    assert told.status == 503
    assert b'"code":"stopping"' in told.read()
    assert code == 0
    assert "Traceback" not in server.output


def test_second_sigint_stops_at_once(post: Poster) -> None:
    """A person who presses Ctrl+C twice does not wait for the drain."""
    with process(*PYTHON_APP, DRAIN_TIMEOUT="600") as server:
        port = int(server.wait_for(LISTENS)[1])
        stream = post(port, b"model=fault-endless&stream=true&prompt=x").getresponse()
        stream.read1(100)
        server.signal(signal.SIGINT)
        assert refuses(port)
        server.signal(signal.SIGINT)

        assert server.wait(5) == 0
    assert "Stopping: One answer in flight may take up to 600 s; Ctrl+C again cuts them.\nStopped.\n" in server.output
    assert "Traceback" not in server.output


def test_idle_keep_alive_connection_does_not_delay_the_stop(post: Poster) -> None:
    """A connection without a request is closed when the server is told to stop."""
    with process(*PYTHON_APP) as server:
        port = int(server.wait_for(LISTENS)[1])
        connection = post(port, b"prompt=x")
        connection.getresponse().read()
        server.signal(signal.SIGTERM)

        assert server.wait(5) == 0


@pytest.mark.parametrize("command", [PYTHON_APP, (CLI, "serve"), (CLI, "check"), UVICORN])
def test_bad_settings_are_told_at_once_and_exit_3(command: tuple[str, ...]) -> None:
    """Every problem is named, without a stack trace and without the key, and the exit code is 3."""
    with process(*command, HTTP_PORT="eighty", KEY="secret canary", IDLE_TIMEOUT="-1") as server:
        code = server.wait()

    assert code == 3
    assert server.output.startswith("3 settings need attention:\n")
    for name in ("HTTP_PORT", "KEY", "IDLE_TIMEOUT"):
        assert f"\n  {name} " in server.output
    assert "canary" not in server.output
    assert "Traceback" not in server.output


def test_open_host_without_client_keys_is_a_start_up_error() -> None:
    """HOST=0.0.0.0 says what to set instead of lending the key to the network."""
    with process(*PYTHON_APP, HOST="0.0.0.0") as server:
        assert server.wait() == 3
    assert "HOST" in server.output
    assert "ALLOW_ANONYMOUS=true" in server.output


def test_allow_anonymous_insists(post: Poster) -> None:
    """ALLOW_ANONYMOUS=true listens on every address."""
    with process(*PYTHON_APP, HOST="0.0.0.0", ALLOW_ANONYMOUS="true") as server:
        port = int(server.wait_for(r"listens at http://0\.0\.0\.0:(\d+)")[1])

        assert post(port, b"prompt=x").getresponse().status == 200


def test_port_in_use_is_told_and_exits_1() -> None:
    """A port that somebody else has is named, with its setting; a process manager may try again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(*PYTHON_APP, HTTP_PORT=str(port)) as server:
            assert server.wait() == 1

    assert server.output == f"Cannot listen at 127.0.0.1 port {port}: Address already in use. See HOST and HTTP_PORT.\n"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, trustme.CA]:
    """The paths of a certificate for localhost and its key, and who signed it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return tmp_path / "cert.pem", tmp_path / "key.pem", authority


def test_tls_as_set(certificate: tuple[Path, Path, trustme.CA]) -> None:
    """ENABLE_SSL serves HTTPS on HTTPS_PORT instead of HTTP, with the given certificate."""
    cert, key, authority = certificate
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    settings = {"ENABLE_SSL": "true", "HTTPS_PORT": "0", "SSL_CERT": str(cert), "SSL_KEY": str(key)}
    with process(*PYTHON_APP, **settings) as server:
        port = int(server.wait_for(r"listens at https://127\.0\.0\.1:(\d+)")[1])
        with closing(http.client.HTTPSConnection("localhost", port, context=tls, timeout=10)) as connection:
            connection.request("GET", "/health")

            assert connection.getresponse().read() == b"OK"


def test_certificate_and_key_that_do_not_belong_together_exit_3(
    certificate: tuple[Path, Path, trustme.CA], tmp_path: Path
) -> None:
    """Files that are there but are no pair are told before anything listens."""
    cert, _, authority = certificate
    other = tmp_path / "other.pem"
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(other))
    with process(*PYTHON_APP, ENABLE_SSL="true", SSL_CERT=str(cert), SSL_KEY=str(other)) as server:
        assert server.wait() == 3

    assert "SSL_CERT and SSL_KEY are not a certificate and its unencrypted key" in server.output


def test_emulator_alone_serves_a_gateway(post: Poster) -> None:
    """`chat-api emulate` is a resource that ENDPOINT can name, with a key and a deployment of one's own."""
    command = (CLI, "emulate", "--port", "0", "--key", "k", "--deployment", "mine")
    with process(*command) as emulator:
        endpoint = emulator.wait_for(r"emulator at (http://127\.0\.0\.1:\d+)")[1]
        settings = {"ENDPOINT": endpoint, "KEY": "k", "DEPLOYMENT_NAME": "mine"}
        with process(*PYTHON_APP, **settings) as server:
            status = post(int(server.wait_for(LISTENS)[1]), b"prompt=x").getresponse().status
        emulator.signal(signal.SIGTERM)
        emulator.wait()

    assert status == 200
    assert f"Answers come from {endpoint}, deployment mine, API 2024-10-21." in server.output


def test_check_prints_the_settings_with_keys_masked() -> None:
    """`chat-api check` shows what a server would use, and no key."""
    with process(CLI, "check", ENDPOINT="https://x.openai.azure.com", KEY="canary", temperature="0.5") as check:
        assert check.wait() == 0

    assert "canary" not in check.output
    assert "\nKEY=***\n" in check.output
    assert "\ntemperature=0.5\n" in check.output
    assert "\nENDPOINT=https://x.openai.azure.com\n" in check.output
    assert "\nCONNECT_TIMEOUT=5\n" in check.output
    assert "Warning: DEPLOYMENT_NAME is not set" in check.output


def test_importing_app_reads_no_settings() -> None:
    """The module can be imported whatever the environment holds; only asking for `app` reads it."""
    command = [sys.executable, "-c", "import app; print(hasattr(app, 'other'))"]
    environ = {"HTTP_PORT": "eighty", "PATH": "/usr/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_idle_clients_are_kept_longer_than_load_balancers_keep_theirs() -> None:
    """uvicorn is told 75 s: its own 5 s make a balancer's next request meet a closed connection, a 502."""
    values = load({}, Path("/nonexistent/.env"))

    assert server_config(values, create_app(values)).timeout_keep_alive == 75


def refuses(port: int, seconds: float = 5) -> bool:
    """Whether new connections are refused within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.01)
    return False


def workers_of(pid: int) -> set[int]:
    """The processes that a process has started."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_workers_serve_one_port_and_are_replaced(post: Poster) -> None:
    """`--workers 2` serves with two processes; one that is killed is started anew; SIGTERM ends all, exit code 0."""
    with process(*PYTHON_APP, "--workers", "2", DRAIN_TIMEOUT="5") as server:
        port = int(server.wait_for(LISTENS)[1])
        server.wait_for(r"(?s)(listens at.*){2}")
        first = workers_of(server.pid)
        os.kill(min(first), signal.SIGKILL)
        assert eventually(lambda: len(workers_of(server.pid) - first) == 1, 10)
        server.wait_for(r"(?s)(listens at.*){3}")
        answers = [post(port, b"prompt=hello").getresponse().status for _ in range(6)]
        stream = post(port, b"model=fault-slow&stream=true&prompt=one two three").getresponse()
        begun = stream.read1(100)
        server.signal(signal.SIGTERM)
        whole = begun + stream.read()
        code = server.wait()

    assert answers == [200] * 6
    assert whole.endswith(b"data: [DONE]\n\n")
    assert code == 0


def test_flags_stand_for_settings(tmp_path: Path) -> None:
    """`-c`, `-l` and `-s` are CONFIG_FILE, HOST with HTTP_PORT, and CORS_ORIGINS; `check` shows them, keys masked."""
    config = tmp_path / "deployments.yaml"
    config.write_text("deployments:\n- {name: d, endpoint: https://r.openai.azure.com, key: canary-key, models: [m]}\n")
    command = (CLI, "check", "-c", str(config), "-l", "127.0.0.1:9000", "-s")
    with process(*command, OPENAI_API_KEY="canary-openai", UPSTREAM_PROXY="http://u:canary@127.0.0.1:1") as checked:
        assert checked.wait() == 0

    shown = dict(line.split("=", 1) for line in checked.output.splitlines() if "=" in line)
    assert (shown["HOST"], shown["HTTP_PORT"], shown["CORS_ORIGINS"]) == ("127.0.0.1", "9000", "*")
    assert shown["CONFIG_FILE"] == str(config)
    assert shown["UPSTREAM"] == "azure"
    assert "canary" not in checked.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_port_that_is_taken(workers: str) -> None:
    """A port that another process has ends the start with exit code 1 and the setting's name, whoever would serve."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with process(*PYTHON_APP, "--port", port, "--workers", workers) as server:
            assert server.wait() == 1

    assert "HTTP_PORT" in server.output
