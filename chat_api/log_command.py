"""The commands `log show` and `log convert`: what was asked and answered, for people and for other programs."""

import contextlib
import io
import os
import re
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from chat_api.conversation_forms import FORMS, Writing, form_of
from chat_api.conversation_text import Paint, as_text, plain, searched
from chat_api.conversations import Record, one_line
from chat_api.loading import load_or_exit
from chat_api.log_choice import Choice, parse_when
from chat_api.log_following import Follower
from chat_api.log_reading import LogReader, Problem, find_files

CANNOT_READ: Final = 1
INTERRUPTED: Final = 130
SHOWN_BEFORE_FOLLOWING: Final = 10
BAR_STEPS: Final = 200
CLEAR_LINE: Final = "\r\x1b[K"
COLOURS: Final[dict[str, dict[str, Any]]] = {
    "head": {"bold": True},
    "user": {"fg": "cyan"},
    "prompt": {"fg": "cyan"},
    "answer": {"fg": "green"},
    "assistant": {"fg": "green"},
    "system": {"fg": "magenta"},
    "developer": {"fg": "magenta"},
    "instructions": {"fg": "magenta"},
    "tool": {"fg": "yellow"},
    "ended": {"fg": "red"},
}
WHEN_HELP = "2026-11-21, 2026-11-21T10:00 (UTC), or how long ago: 2h, 3d."


def default_folder() -> Path:
    """Where the log is if no option says it: as the settings have it."""
    return load_or_exit().log_dir


def _place(files: tuple[Path, ...], folder: Path | None) -> Path:
    """Where the log is; settings that cannot be used matter only if nothing else says it."""
    return files[0] if files else folder or default_folder()


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both commands have."""
    options = (
        click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]..."),
        click.option("--dir", "folder", type=click.Path(path_type=Path), help="The log's folder.  [default: LOG_DIR]"),
        click.option("--key", metavar="NAME", help="Only exchanges of the client key of this name."),
        click.option("--since", metavar="WHEN", help=f"Only what began then or later: {WHEN_HELP}"),
        click.option("--until", metavar="WHEN", help="Only what began before; a day is meant to its end."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def log() -> None:
    """Read the conversation log, and openai-forward's."""


@log.command()
@_options
@click.option("--grep", metavar="REGEX", help="Only exchanges in whose words this is found; (?i) for any case.")
@click.option("-n", "--last", type=click.IntRange(0), help="Only the last so many; 10 before what --follow shows.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, over new days and files, until Ctrl-C.")
def show(
    files: tuple[Path, ...], folder: Path | None, follow: bool, last: int | None, grep: str | None, **options: Any
) -> None:
    """Print conversations for people, times in UTC. Without FILE those of the log's folder."""
    choice, found = _choice(**options), _pattern(grep)
    place = _place(files, folder)
    find = partial(find_files, files, place, choice.since)
    reader = LogReader(_report)

    def print_them(records: Iterable[Record], last: int | None = None) -> None:
        meant = (record for record in filter(choice.takes, records) if found is None or found.search(searched(record)))
        for record in meant if last is None else deque(meant, last):
            click.echo(as_text(record, _paint()))

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows no Unicode is shown what it can
    with _quiet_end(0 if follow else INTERRUPTED):
        if follow:
            before = SHOWN_BEFORE_FOLLOWING if choice.since is None and last is None else last
            with contextlib.closing(Follower(reader, find)) as follower, _noticed_interrupt() as is_over:
                print_them(follower.begin(), before)
                print_them(follower.follow(is_over=is_over))
            return
        print_them(reader.records(_found_or_exit(find(), place)), last)
    _end(reader)


@log.command()
@_options
@click.option("--format", "form", type=click.Choice(FORMS), default="json", show_default=True, help="What to write.")
@click.option("-o", "--output", default="-", metavar="FILE", help="Where to; - is standard output.  [default: -]")
@click.option("--force", is_flag=True, help="Replace FILE if there is one.")
def convert(files: tuple[Path, ...], folder: Path | None, form: str, output: str, force: bool, **options: Any) -> None:
    """Write conversations in another form. Without FILE those of the log's folder."""
    choice = _choice(**options)
    target = None if output == "-" else Path(output)
    if target is not None:
        _check_target(target, force)
    place = _place(files, folder)
    paths = _found_or_exit(find_files(files, place, choice.since), place)
    writing = Writing(form_of(form))
    with _quiet_end(INTERRUPTED), _progress(paths, target) as (progress, report):
        reader = LogReader(report, progress=progress)
        with _opened(target, force) as out:
            for piece in writing.pieces(filter(choice.takes, reader.records(paths))):
                out.write(piece)
            if reader.unread and not reader.read:
                _end(reader)  # before anything takes the place of a file
    if writing.left_out:
        click.echo(f"Left out: {writing.left_out}, for {form} has whole chats only.", err=True)
    _end(reader)


def _choice(key: str | None, since: str | None, until: str | None) -> Choice:
    def read(name: str, text: str | None, is_end: bool) -> float | None:
        try:
            return parse_when(text, time.time(), is_end=is_end) if text else None
        except ValueError as error:
            raise click.BadParameter(f'"{text}": {error}', param_hint=name) from None

    return Choice(key, read("--since", since, False), read("--until", until, True))


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise click.BadParameter(f"it is no regular expression: {error}", param_hint="--grep") from None


def _paint() -> Paint:
    return plain if os.environ.get("NO_COLOR") else _painted  # no-color.org; click does not look at it


def _painted(kind: str, text: str) -> str:
    return click.style(text, **COLOURS.get(kind, {}))


def _found_or_exit(paths: list[Path], folder: Path) -> list[Path]:
    if not paths:
        try:
            os.listdir(folder)
            reason = ""
        except OSError as error:
            reason = f": {error.strerror}"
        click.echo(f"There is no conversation log in {one_line(str(folder))}{reason}. See --dir.", err=True)
        sys.exit(CANNOT_READ)
    return paths


def _report(problem: Problem) -> None:
    place = one_line(str(problem.path)) + (f":{problem.number}" if problem.number else "")
    click.echo(f"{place}: {problem.reason}; skipped", err=True)


def _end(reader: LogReader) -> None:
    """Say how much was skipped; exit with 1 if there was nothing else."""
    if reader.lonely:
        click.echo(f"Answers to what is not in these files: {reader.lonely}.", err=True)
    if reader.unread:
        click.echo(f"Skipped: {reader.unread}; read: {reader.read}.", err=True)
        sys.exit(0 if reader.read else CANNOT_READ)


@contextlib.contextmanager
def _noticed_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; the second time it ends the command wherever it is.

    As an exception it would be lost where Python can raise none: while an object is let go of, say.
    """
    pressed: list[int] = []

    def note(number: int, _: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _quiet_end(on_interrupt: int) -> Iterator[None]:
    """Ctrl-C, and a reader that has read enough, end the command without a word."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(on_interrupt)


@contextlib.contextmanager
def _progress(
    paths: Iterable[Path], target: Path | None
) -> Iterator[tuple[Callable[[int], object], Callable[[Problem], object]]]:
    """A bar on standard error, if that is a terminal, and nothing else is written to one."""
    if not sys.stderr.isatty() or (target is None and sys.stdout.isatty()):
        yield lambda more: None, _report
        return
    total = sum(path.stat().st_size for path in paths if path.is_file())
    with click.progressbar(length=total, label="Reading", file=sys.stderr, update_min_steps=total // BAR_STEPS) as bar:

        def report(problem: Problem) -> None:
            click.echo(CLEAR_LINE, nl=False, err=True)
            _report(problem)

        yield lambda more: bar.update(more), report
        bar.finish()
        bar.render_progress()


def _check_target(target: Path, force: bool) -> None:
    """Refuse before anything is read."""
    if target.exists() and not target.is_file():
        raise click.BadParameter(f"{target} is no file.", param_hint="--output")
    if os.path.lexists(target) and not force:
        raise click.BadParameter(f"{target} is there already; --force replaces it.", param_hint="--output")
    if not target.parent.is_dir():
        raise click.BadParameter(f"there is no folder {target.parent}.", param_hint="--output")


@contextlib.contextmanager
def _opened(target: Path | None, force: bool) -> Iterator[BinaryIO]:
    """What is written to: a file, for its owner only, comes about whole or not at all."""
    if target is None:
        yield sys.stdout.buffer
        return
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # with mode 0600
    except OSError as error:
        raise click.FileError(str(target), error.strerror) from None
    try:
        with open(descriptor, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        if not force and os.path.lexists(target):
            raise click.FileError(str(target), "it has come about meanwhile; --force replaces it")
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
