"""Several processes that serve one listening socket, and the one that starts, watches and stops them."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
MIN_LIFE_SECONDS = 1.0  # a worker that dies sooner is started again no faster than this

log = logging.getLogger(__name__)


class Workers:
    """Runs `work` in child processes until SIGTERM or SIGINT, and starts anew the one that dies.

    Args:
        count: how many processes.
        work: what each of them does until it is told to stop, by the same signals.
        final: exit codes after which starting again is senseless; the others are stopped then.
    """

    def __init__(self, count: int, work: Callable[[], None], *, final: tuple[int, ...] = ()) -> None:
        self._count = count
        self._work = work
        self._final = final
        self._started: dict[int, float] = {}
        self._stopping = False

    def run(self) -> int:
        """Start them, and return the exit code once all have ended."""
        for number in SIGNALS:
            signal.signal(number, self._stop)
        for _ in range(self._count):
            self._start()
        result = 0
        while self._started:
            pid, status = os.wait()
            started = self._started.pop(pid, None)
            code = os.waitstatus_to_exitcode(status)
            if started is None or self._stopping:
                continue
            log.warning("worker %d ended with exit code %d", pid, code)
            if code in self._final:
                result = code
                self._stop(signal.SIGTERM, None)
            else:
                time.sleep(max(0.0, started + MIN_LIFE_SECONDS - time.monotonic()))
                self._start()
        return result

    def _start(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal must find either the parent or a whole worker
        pid = os.fork()
        if pid == 0:
            self._be_worker()
        self._started[pid] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if self._stopping:
            os.kill(pid, signal.SIGTERM)

    def _be_worker(self) -> None:
        code = 1
        try:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._work()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            log.exception("a worker failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        # A second SIGINT cuts what is in flight. At a terminal the workers get the first one themselves as well.
        sent = signal.SIGINT if self._stopping and number == signal.SIGINT else signal.SIGTERM
        self._stopping = True
        for pid in list(self._started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
