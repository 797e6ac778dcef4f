"""Real processes for tests: started with given settings, watched until they listen, stopped at the end."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.canaries import spilled

ROOT = Path(__file__).parents[1]
CLI = str(Path(sys.executable).with_name("chat-api"))
PYTHON_APP = (sys.executable, "app.py")


class Process:
    """A process whose output is collected as it comes."""

    def __init__(self, command: tuple[str, ...], environ: dict[str, str]) -> None:
        values = {**os.environ, "HTTP_PORT": "0", **environ}
        self._popen = subprocess.Popen(
            command, cwd=ROOT, env=values, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.pid = self._popen.pid

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def output(self) -> str:
        """What it has printed so far, to standard output and standard error."""
        return "".join(self._lines)

    def wait_for(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        """The first match of a pattern in what it prints."""
        with self._news:
            self._news.wait_for(lambda: self._ended or re.search(pattern, self.output), timeout=seconds)
        match = re.search(pattern, self.output)
        assert match, f"{pattern!r} did not come; it printed:\n{self.output}"
        return match

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        """Its exit code, once it has ended."""
        code = self._popen.wait(seconds)
        self._reader.join(seconds)
        return code

    def kill(self) -> None:
        """End it if it has not ended."""
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()
        self._reader.join()
        assert self._popen.stdout is not None
        self._popen.stdout.close()


@contextlib.contextmanager
def process(*command: str, **environ: str) -> Iterator[Process]:
    """A process in the project's folder with these settings, on a free port if it is the gateway."""
    running = Process(command, environ)
    try:
        yield running
    finally:
        running.kill()
    assert not spilled(running.output), "keys came out"
