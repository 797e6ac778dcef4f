"""Redaction in a process of its own.

A regular expression holds everything up in the process in which it runs, whichever thread that is, and there is no
end to what some of them take for some texts. So there is a second process, which gets a line and gives it back; what
takes it longer than `MAX_SECONDS` ends it, and the next line begins another.
"""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO

import msgspec

from chat_api.redaction import Rule, parse_rule, redacted_line

MAX_SECONDS = 1.0  # of a processor's time, for one line


class Redactor:
    """Redacts lines, one after the other; it blocks, and is for one thread.

    Args:
        rules: what is redacted.
        max_seconds: of a processor's time for one line.
    """

    def __init__(self, rules: Sequence[Rule], max_seconds: float) -> None:
        self._rules = [(rule.pattern.pattern, rule.replace) for rule in rules]
        self._max_seconds = max_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def redacted(self, line: bytes) -> bytes | None:
        """The line without what is not to be written; None if that took too long, or cannot be done."""
        for _ in range(2):  # a process that had ended before is none that the line has ended
            is_new = self._process is None
            answer = self._ask(line)
            if answer.endswith(b"\n"):
                return answer[:-1] or None
            self.close()
            if is_new:
                break
        return None

    def _ask(self, line: bytes) -> bytes:
        try:
            if self._process is None:
                self._process = self._started()
            stdin, stdout = _pipes(self._process)
            stdin.write(line + b"\n")
            stdin.flush()
            return stdout.readline()
        except OSError:
            return b""

    def _started(self) -> subprocess.Popen[bytes]:
        # The path as it is here, wherever the package was found. Ctrl-C does not reach another process group.
        code = f"import sys; sys.path[:] = {sys.path!r}; from chat_api.redactor import serve; serve()"
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(  # noqa: S603 - our own
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        _pipes(process)[0].write(msgspec.json.encode([self._max_seconds, self._rules]) + b"\n")
        return process

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()
        process.wait()
        for pipe in _pipes(process):
            with contextlib.suppress(OSError):  # what was still to be written
                pipe.close()


def serve() -> None:
    """Read the rules, then line after line; write each redacted, or an empty one where that cannot be."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    max_seconds, patterns = msgspec.json.decode(stdin.readline(), type=tuple[float, list[tuple[str, str]]])
    rules = [parse_rule(pattern, replace) for pattern, replace in patterns]
    while line := stdin.readline():
        _allow(max_seconds)
        try:
            redacted = redacted_line(line, rules)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            redacted = b""
        _allow(0)
        stdout.write(redacted + b"\n")
        stdout.flush()


def _allow(seconds: float) -> None:
    """So much of a processor's time from now on; what takes more ends the process, whatever it is in the middle of."""
    if hasattr(signal, "setitimer"):  # Windows has none
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None  # noqa: S101 - both were asked for
    assert process.stdout is not None  # noqa: S101
    return process.stdin, process.stdout
