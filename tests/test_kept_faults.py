"""A gateway that keeps and shares answers fails as one does that keeps none."""

import re

import pytest

from benchmarks.callers import Called
from chat_api.emulator import FAULTS
from tests.keepers import CHAT, KEPT, SHARED, SIMPLE_CHAT, asks, fronts

pytestmark = pytest.mark.alone  # its patience is short

NOT_ALIKE = ("fault-500-once", "fault-endless")  # the one counts its calls, the other has no end
WHOLE = frozenset(  # the answers of those are whole, whatever their form
    {"fault-crlf", "fault-split", "fault-gzip", "fault-async-filter", "fault-no-last-newline"}
)
# An id is made of its request, and the asynchronous filter's chunks say of the usage what need not be said.
_OWN = re.compile(rb'chatcmpl-\w+|127\.0\.0\.1:\d+|,"usage":null')


def same(called: Called) -> tuple[int, bool, bytes]:
    """What of an answer is not its own."""
    return called.status, called.has_ended, _OWN.sub(b"", called.body)


@pytest.mark.parametrize(("path", "stream"), [(CHAT, False), (CHAT, True), (SIMPLE_CHAT, True)])
def test_every_fault_is_told_as_it_is_without(path: str, stream: bool) -> None:
    """Status, body and end of each of the emulator's faults are the same; those that are answers are kept."""
    patience = {"FIRST_BYTE_TIMEOUT": "0.4", "IDLE_TIMEOUT": "0.4", "MAX_ATTEMPTS": "1", "PING_INTERVAL": "0"}
    kinds = {name: asks("Grüße", path=path, stream=stream, model=name) for name in FAULTS if name not in NOT_ALIKE}
    with fronts(patience, {**patience, **KEPT, **SHARED}) as (plain, keeping):
        crowds = [plain.begin(*kinds.values()), keeping.begin(*kinds.values())]
        expected, first = (dict(zip(kinds, crowd.got(), strict=True)) for crowd in crowds)
        answered = [name for name in kinds if first[name].status == 200 and first[name].has_ended]
        again = dict(zip(answered, keeping.begin(*(kinds[name] for name in answered)).got(), strict=True))

    assert {name: same(one) for name, one in first.items()} == {name: same(one) for name, one in expected.items()}
    assert {name: same(one) for name, one in again.items()} == {name: same(first[name]) for name in answered}
    hits = {name for name, one in again.items() if one.headers["x-chat-api-cache"] == "hit"}
    assert hits >= WHOLE
    assert all(first[name].is_good and b'content_filter"' not in first[name].body for name in hits)
