"""Fixtures for every test: an environment without settings, and no blocking call in an event loop."""

import os
from collections.abc import Iterator

import httpcore2  # noqa: F401 - httpx imports it when first used, which would count as blocking the loop
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from chat_api.dropin import NOT_YET
from chat_api.settings_table import TABLE


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
