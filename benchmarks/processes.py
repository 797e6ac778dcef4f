"""Processes under measurement: started on a core of their own, stopped whatever happens; their CPU time and memory."""

import contextlib
import os
import random
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 30
STOP_SECONDS = 3
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


def resident_bytes(pid: int) -> int:
    """The memory of a process that is resident, shared pages included."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
