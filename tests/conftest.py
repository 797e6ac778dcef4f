"""For every test: an environment without settings, no blocking call in an event loop, and no key in what comes out."""

import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpcore2  # noqa: F401 - httpx imports it when first used, which would count as blocking the loop
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from chat_api.dropin import NOT_YET
from chat_api.settings_table import TABLE
from tests.canaries import spilled, spilled_into
from tests.redis_servers import redis, redis_cluster, shared_redis  # noqa: F401 - fixtures


def pytest_configure() -> None:
    """Whatever the server would say at LOG_LEVEL=debug is said, to be looked at."""
    logging.getLogger("chat_api").setLevel(logging.DEBUG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test fails if a key is in what was logged or printed while it ran, or in a file that came about."""
    report = yield
    if report.when == "teardown":
        found = spilled("\n".join(text for _, text in report.sections))
        folder: Any = getattr(item, "funcargs", {}).get("tmp_path")
        found += spilled_into(folder) if isinstance(folder, Path) else []
        if found:
            report.outcome = "failed"
            report.longrepr = f"keys came out: {', '.join(found)}"
    return report


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting and no proxy of the machine's own reaches a test."""
    known = {name for row in TABLE for name in (row.name, *row.aliases)} | set(NOT_YET)
    for name in list(os.environ):
        if name in known or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """A call that blocks an event loop fails the test."""
    with blockbuster_ctx("chat_api") as detector:
        # Coverage takes a lock of its own in whatever code it traces.
        detector.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield detector
