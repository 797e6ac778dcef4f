"""`chat-api emulate`: its options reach the emulator, and what is wrong with them is told."""

import re
import signal
from pathlib import Path

import httpx2 as httpx
import pytest
from click.testing import CliRunner

from chat_api.cli import main
from chat_api.emulator.outages import KINDS
from tests.emulators import CHAT
from tests.processes import CLI, process

PAGE = (Path(__file__).parents[1] / "docs" / "emulator.md").read_text()
BODY = {"messages": [{"role": "user", "content": "hi"}]}


def test_options_make_the_resource() -> None:
    """Region, limits, latency and outages are those of the command line; limits are each deployment's."""
    options = ("--region", "East US", "--rpm", "12", "--tpm", "1000", "--latency", "0.01")
    outages = ("--outage", "gpt-4.1:0+600=500", "--outage", "500+1=503")
    with process(CLI, "emulate", "--port", "0", *options, *outages) as emulator:
        base_url = emulator.wait_for(r"emulator at (http://\S+)")[1]
        with httpx.Client(base_url=base_url, headers={"api-key": "k"}, timeout=10) as client:
            answers = [client.post(CHAT, json=BODY) for _ in range(3)]
            broken = client.post(CHAT.replace("gpt-4o", "gpt-4.1"), json=BODY)
        emulator.signal(signal.SIGTERM)
        emulator.wait()

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ms-region"] == "East US"
    assert (answers[0].headers["x-ratelimit-limit-requests"], answers[0].headers["x-ratelimit-limit-tokens"]) == (
        "2",
        "1000",
    )
    assert broken.status_code == 500


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--outage", "503"), "START+SECONDS=KIND such as 10+60=503"),
        (("--outage", "0+1=502"), ", ".join(KINDS)),
        (("--outage", "x:0+1=503"), "no deployment is called 'x'"),
        (("--outage", "gpt-4o:0+1=refused"), "a whole resource"),
        (("--latency", "fast"), "SECONDS such as 0.2"),
        (("--region", "\u00e9"), "printable ASCII such as East US"),
        (("--rpm", "0"), "x>=1"),
        (("--tpm", "many"), "not a valid integer"),
    ],
)
def test_bad_option_is_told_what_is_accepted(options: tuple[str, str], told: str) -> None:
    """It names the option, says what it takes, and nothing listens."""
    done = CliRunner().invoke(main, ["emulate", "--port", "0", *options])

    assert done.exit_code == 2
    assert options[0] in done.output
    assert told in " ".join(done.output.split())


def test_page_lists_every_kind_of_outage() -> None:
    """docs/emulator.md and the code name the same kinds, in the same order."""
    table = PAGE[PAGE.index("| Kind |") : PAGE.index("Whatever is asked of the resource")]

    assert tuple(re.findall(r"`(\w+)`", re.sub(r"(?m)^(\|[^|]+\|).*$", r"\1", table))) == KINDS
