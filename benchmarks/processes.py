"""Processes under measurement: started on a core of their own, stopped whatever happens; their CPU time and memory."""

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

READY_SECONDS = 30
STOP_SECONDS = 3
_LISTENING = "0A"  # a socket's state as /proc/net/tcp has it
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


class NotStarted(Exception):
    """A process did not come to answer; the message holds the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core is whose."""

    load: int
    subject: int

    @property
    def are_shared(self) -> bool:
        """Whether there is but one core for both, so that they wait for each other."""
        return self.load == self.subject


def choose_cores() -> Cores:
    """One core for the load and the upstream, the next for the subject, if there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(cores[0], cores[min(1, len(cores) - 1)])


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on one core, and so does every process that is started meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Allow this process and those that it starts as many open files as may be; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def clean_environ() -> dict[str, str]:
    """The environment for a process: no setting and no proxy of the machine's own reaches it."""
    return {name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES}


def free_port() -> int:
    """A port of the loopback address that nobody listens on; none that the kernel might give to a client meanwhile."""
    while True:
        port = random.randrange(20000, 32000)  # noqa: S311 - below the ephemeral ports; no secret
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended that was told to: its exit code (None: it had to be killed), and what it said on the way."""

    code: int | None
    seconds: float
    output: str


class Running:
    """A process that listens on a port.

    Args:
        command: what is run.
        port: where it will listen.
        folder: its working folder.
        log: the file that takes what it prints.
        environ: its variables besides those of `clean_environ`.
    """

    def __init__(self, command: list[str], port: int, folder: Path, log: Path, environ: dict[str, str]) -> None:
        self.port = port
        self._log = log
        with log.open("ab") as output:
            # In a session of its own: Ctrl+C is for this process, which then stops that one.
            self._popen = subprocess.Popen(  # noqa: S603 - our own command
                command,
                cwd=folder,
                env=clean_environ() | environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def wait_until_listening(self) -> None:
        """Wait until it takes connections.

        Raises:
            NotStarted: it has ended, or takes too long.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._popen.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.002)
        raise NotStarted(f"it does not listen; it printed: {self._log.read_text(errors='replace')[-1000:]}")

    def printed(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def end(self, patience: float) -> Ended:
        """Send SIGTERM and wait for its end, for so many seconds."""
        before, started = self._log.stat().st_size, time.monotonic()
        self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(patience)
        seconds, code = time.monotonic() - started, self._popen.returncode
        self.stop()
        return Ended(code, seconds, self._log.read_bytes()[before:].decode(errors="replace"))

    def stop(self) -> None:
        """End it; kindly first."""
        try:
            self._popen.terminate()
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:  # whatever comes between, Ctrl+C too
            self._popen.kill()
            self._popen.wait()


def cpu_ns(pid: int) -> int:
    """The CPU time that a process has taken so far, in nanoseconds; user and system time of all its threads."""
    try:
        # The id of another process's CPU clock, as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED is 2.
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> int:
    """How many file descriptors a process has."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def tcp_connections(pid: int) -> list[tuple[int, int]]:
    """The TCP connections over IPv4 that a process has not closed, in whatever state: local and remote port."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(path))
    found = []
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_, inode = line.split(maxsplit=10)[:10]
        if state != _LISTENING and f"socket:[{inode}]" in links:
            found.append((int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)))
    return found


def stop_on_signals() -> None:
    """Let being told to stop be as Ctrl+C: what was started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    # A shell that starts this in the background has SIGINT ignored, and that is handed down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def resident_bytes(pid: int) -> int:
    """The memory of a process that is resident, shared pages included."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
