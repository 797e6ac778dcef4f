"""What is measured: this gateway, nginx as the limit, a plain gateway for comparison, and no gateway at all.

This gateway comes with nothing that it need not do, and once more for each thing that it may do besides: with a client
key, limits and usage; with identical calls in flight sharing one; with the conversation log; and with answers that are
kept, beside Starlette answering by itself.
"""

import compileall
import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.exchanges import CLIENT_KEY
from benchmarks.processes import Cores, Running, free_port, on_core

ROOT = Path(__file__).parents[1]
OURS, LIMITED, COALESCING, LOGGED = WITHOUT_CACHE = ("ours", "ours-limited", "ours-coalescing", "ours-logged")
NGINX, PLAIN, DIRECT = OTHERS = ("nginx", "plain", "direct")
CACHED, STARLETTE = ALONE = ("ours-cached", "starlette")  # whose answers need no upstream
SUBJECTS = (*WITHOUT_CACHE, *OTHERS, *ALONE)
EMULATED = "ours, emulator"  # without an ENDPOINT: the built-in emulator answers

# A caller is counted in five windows and among the calls in flight; nothing of it is ever used up.
_LIMITS = """\
client_keys:
  - name: benchmark
    sha256: {digest}
    requests: {plenty}/minute
    tokens: {plenty}/minute; {plenty}/day
    max_parallel: 10000
    budget: 1000
prices:
  json-1k: {{prompt: 2.50, completion: 10.00, cached: 1.25}}
  {stream}: {{prompt: 2.50, completion: 10.00, cached: 1.25}}
"""
_PLENTY = 10**9
_STREAM = "stream-2ms-100"
_NGINX_CONFIG = """\
daemon off;
master_process off;  # the one process is the worker
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
  access_log {folder}/nginx-access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  upstream canned {{
    server 127.0.0.1:{upstream};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://canned;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the subjects of a run live.

    Args:
        folder: a temporary folder for their files.
        upstream: the port of the canned upstream.
        cores: which core is whose.
        files: how many files a process may open.
    """

    folder: Path
    upstream: int
    cores: Cores
    files: int


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject that listens; `pid` is None where there is no gateway."""

    name: str
    port: int
    pid: int | None


def nginx_binary() -> str | None:
    """Where nginx is, if the machine has it; distributions put it where not everybody looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def take_snapshot(folder: Path) -> None:
    """Copy this gateway's code to where no `.env` and no config.yaml is beside it, and nobody edits it."""
    shutil.copytree(ROOT / "chat_api", folder / "ours" / "chat_api", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app.py", folder / "ours")
    compileall.compile_dir(folder / "ours", quiet=2)  # as an installed gateway is: its start is measured too


@contextlib.contextmanager
def upstream_process(folder: Path, cores: Cores) -> Iterator[int]:
    """The canned upstream on the core of the load; its port."""
    port = free_port()
    with on_core(cores.load):
        upstream = Running(
            [sys.executable, "-m", "benchmarks.upstream", str(port)], port, ROOT, folder / "upstream.log", {}
        )
    try:
        upstream.wait_until_listening()
        yield port
    finally:
        upstream.stop()


class Subjects:
    """The subjects of one row, by name; whatever was started is stopped at the end of the `with` block.

    Args:
        place: where they live.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lasting = contextlib.ExitStack()
        self._shared: dict[str, Subject] = {}

    def __enter__(self) -> "Subjects":
        return self

    def __exit__(self, *error: object) -> None:
        self._lasting.close()

    def shared(self, name: str) -> Subject:
        """A subject whose process serves all rounds of the row.

        Raises:
            NotStarted: it does not come to listen.
        """
        if name not in self._shared:
            self._shared[name] = self._lasting.enter_context(self.fresh(name))
        return self._shared[name]

    @contextlib.contextmanager
    def fresh(self, name: str) -> Iterator[Subject]:
        """A subject with a process of its own, until the block ends.

        Raises:
            NotStarted: it does not come to listen.
        """
        if name == DIRECT:
            yield Subject(name, self._place.upstream, None)
            return
        process = self.spawn(name)
        try:
            process.wait_until_listening()
            yield Subject(name, process.port, process.pid)
        finally:
            process.stop()

    def spawn(self, name: str) -> Running:
        """Start a subject's process on its core. It does not listen yet, and who called stops it."""
        with on_core(self._place.cores.subject):
            return _COMMANDS[name](self._place, free_port())


def _ours(place: Place, port: int) -> Running:
    return _gateway(place, port, _upstream(place))


def _limited(place: Place, port: int) -> Running:
    folder = place.folder / f"limited-{port}"
    folder.mkdir()
    config = folder / "config.yaml"
    digest = hashlib.sha256(CLIENT_KEY.encode()).hexdigest()
    config.write_text(_LIMITS.format(digest=digest, plenty=_PLENTY, stream=_STREAM))
    limits = {
        "CONFIG_FILE": str(config),
        "MODEL_TOKEN_LIMIT": json.dumps(dict.fromkeys(("json-1k", _STREAM), f"{_PLENTY}/minute")),
        "USAGE_FILE": str(folder / "usage.json"),
    }
    return _gateway(place, port, _upstream(place) | limits)


def _logged(place: Place, port: int) -> Running:
    return _gateway(place, port, _upstream(place) | {"LOG_CHAT": "true", "LOG_DIR": str(place.folder / f"log-{port}")})


def _upstream(place: Place) -> dict[str, str]:
    return {"ENDPOINT": f"http://127.0.0.1:{place.upstream}", "KEY": "benchmark", "DEPLOYMENT_NAME": "json-1k"}


def _gateway(place: Place, port: int, upstream: dict[str, str]) -> Running:
    environ = {"HOST": "127.0.0.1", "HTTP_PORT": str(port), **upstream}
    return Running([sys.executable, "app.py"], port, place.folder / "ours", place.folder / "ours.log", environ)


def _nginx(place: Place, port: int) -> Running:
    folder = place.folder / f"nginx-{port}"
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(_NGINX_CONFIG.format(folder=folder, port=port, upstream=place.upstream, files=place.files))
    command = [nginx_binary() or "nginx", "-p", str(folder), "-c", str(config), "-e", str(folder / "nginx-error.log")]
    return Running(command, port, folder, folder / "nginx.log", {})


def _plain(place: Place, port: int) -> Running:
    return _uvicorn("plain", place, port, {"PLAIN_UPSTREAM": f"http://127.0.0.1:{place.upstream}"})


def _uvicorn(name: str, place: Place, port: int, environ: dict[str, str]) -> Running:
    options = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--backlog",
        "4096",
    ]
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.{name}:app", *options]
    return Running(command, port, ROOT, place.folder / f"{name}.log", environ)


_COMMANDS: dict[str, Callable[[Place, int], Running]] = {
    OURS: _ours,
    LIMITED: _limited,
    COALESCING: lambda place, port: _gateway(place, port, _upstream(place) | {"COALESCE": "true"}),
    LOGGED: _logged,
    CACHED: lambda place, port: _gateway(place, port, _upstream(place) | {"CACHE_CHAT_COMPLETION": "true"}),
    EMULATED: lambda place, port: _gateway(place, port, {}),
    NGINX: _nginx,
    PLAIN: _plain,
    STARLETTE: lambda place, port: _uvicorn("by_itself", place, port, {}),
}
