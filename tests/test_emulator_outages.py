"""The emulator's outages: when they are there, and what callers meet."""

import socket

import httpx2 as httpx
import pytest

from chat_api.emulator import Emulator, Outage
from chat_api.emulator.outages import KINDS, Outages, parse
from tests.emulators import CHAT, Clock, emulated
from tests.servers import eventually

BODY = {"messages": [{"role": "user", "content": "hi"}]}
OTHER = CHAT.replace("gpt-4o", "gpt-4.1")


@pytest.mark.parametrize(
    ("outage", "there", "not_there"),
    [
        pytest.param(Outage("503"), [0, 1e9], [-0.1], id="until-it-is-ended"),
        pytest.param(Outage("503", start=10, seconds=60), [10, 69.9], [9.9, 70, 1000], id="for-a-time"),
        pytest.param(
            Outage("503", start=10, seconds=6, period=2), [10, 11.9, 14, 15.9], [12, 13.9, 16, 18], id="on-and-off"
        ),
    ],
)
def test_outage_has_its_time(outage: Outage, there: list[float], not_there: list[float]) -> None:
    """An outage begins and ends to the moment, and one with a period comes and goes."""
    assert [outage.on(elapsed) for elapsed in (*there, *not_there)] == [True] * len(there) + [False] * len(not_there)


@pytest.mark.parametrize(
    ("text", "outage"),
    [
        ("10+60=503", Outage("503", None, 10, 60)),
        ("0.5+1.5=refused", Outage("refused", None, 0.5, 1.5)),
        ("0+60=hang/5", Outage("hang", None, 0, 60, 5)),
        ("gpt-4.1:10+60=flapping", Outage("flapping", "gpt-4.1", 10, 60)),
    ],
)
def test_outage_in_words(text: str, outage: Outage) -> None:
    """The command line's way to write an outage."""
    assert parse(text) == outage


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("503", r"START\+SECONDS=KIND"),
        ("10+60", r"START\+SECONDS=KIND"),
        ("-1+60=503", r"START\+SECONDS=KIND"),
        ("10+60=503/", r"START\+SECONDS=KIND"),
        ("1e3+60=503", r"START\+SECONDS=KIND"),
        ("10+60=502", "no kind of outage: 401, .*503, hang, reset, closed, refused, flapping"),
        ("gpt-4o:10+60=refused", "a whole resource"),
    ],
)
def test_what_is_no_outage_is_told_what_is_one(text: str, told: str) -> None:
    """A text that cannot be read is refused with what can be written there."""
    with pytest.raises(ValueError, match=told):
        parse(text)


def test_schedule_counts_from_the_start_and_the_set_one_from_its_setting() -> None:
    """The outage that was set comes before the scheduled ones, and its end leaves those."""
    outages = Outages([Outage("503", start=10, seconds=10), Outage("hang", "d", start=15)], now=1000)
    before = [outages.met("d", now) for now in (1009.0, 1010.0, 1019.9, 1020.0)]
    outages.set(Outage("429", start=1, seconds=2), now=1012)
    during = [outages.met("d", now) for now in (1012.5, 1013.0, 1014.9, 1015.0)]
    outages.set(None, now=1014)

    assert before == [None, "503", "503", "hang"]
    assert during == ["503", "429", "429", "503"]
    assert outages.met("d", 1014) == "503"
    assert outages.met("other", 1020) is None


def test_flapping_is_every_other_call() -> None:
    """The first call of an outage that flaps meets 503, the second none, and so on, whenever they come."""
    outages = Outages([], now=0)
    outages.set(Outage("flapping"), now=0)

    assert [outages.met("d", 1.0) for _ in range(5)] == ["503", None, "503", None, "503"]


def test_refusing_is_for_the_door() -> None:
    """Calls that are in when nobody is to come in any more meet no other outage."""
    outages = Outages([Outage("refused", start=5, seconds=5)], now=0)

    assert [outages.refuses(now) for now in (4.9, 5, 9.9, 10)] == [False, True, True, False]
    assert outages.met("d", 6) is None


def met(client: httpx.Client, path: str = CHAT) -> str:
    """What a call meets: the status, or the way in which there is none."""
    try:
        return str(client.post(path, json=BODY).status_code)
    except httpx.TransportError as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("kind", "meets"),
    [
        *((status, status) for status in ("401", "403", "404", "408", "429", "500", "503")),
        ("reset", "ReadError"),
        ("closed", "RemoteProtocolError"),
        ("refused", "ConnectError"),
        ("flapping", "503"),
    ],
)
def test_outage_begins_and_ends_at_once(kind: str, meets: str) -> None:
    """The next call meets it, whatever it asks for, and the one after its end is answered, on the same port."""
    emulator = Emulator()
    with emulated(emulator) as client:
        found = [met(client)]
        for path in (CHAT, "/openai/v1/models"):
            emulator.outage = Outage(kind)
            found.append(met(client, path))
        emulator.outage = None
        found.append(met(client))

    assert found == ["200", meets, meets, "200"]


def test_every_kind_is_tried_here() -> None:
    """The kinds are those that the tests of this file set."""
    assert set(KINDS) == {*("401", "403", "404", "408", "429", "500", "503", "hang", "reset", "closed")} | {
        "refused",
        "flapping",
    }


def test_outage_of_one_deployment_leaves_the_others() -> None:
    """Only who asks for the deployment meets its outage; both are counted."""
    emulator = Emulator(outages=[Outage("500", "gpt-4o")])
    with emulated(emulator) as client:
        assert [met(client), met(client, OTHER)] == ["500", "200"]
        assert client.get("/openai/v1/models").status_code == 200

    assert emulator.asked == {"gpt-4o": 1, "gpt-4.1": 1}


def test_scheduled_outage_comes_and_goes() -> None:
    """The emulator's clock decides, from when the emulator was made."""
    clock = Clock()
    with emulated(Emulator(outages=[Outage("503", start=10, seconds=60)], clock=clock)) as client:
        found = []
        for now in (1009.0, 1010.0, 1069.0, 1070.0):
            clock.now = now
            found.append(met(client))

    assert found == ["200", "503", "503", "200"]


def test_scheduled_refusal_closes_the_door_and_opens_it() -> None:
    """Without anybody's doing nobody listens from its start to its end, and connections are cut."""
    clock = Clock()
    with emulated(Emulator(outages=[Outage("refused", start=10, seconds=60)], clock=clock)) as client:
        port = client.base_url.port or 0
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.settimeout(5)
            assert not refused(port)
            clock.now = 1010.0
            assert eventually(lambda: refused(port))
            assert closed(idle)
        clock.now = 1070.0
        assert eventually(lambda: not refused(port))
        assert met(client) == "200"


def test_refusal_cuts_what_is_being_answered() -> None:
    """A stream breaks off, and the call is over."""
    emulator = Emulator()
    with emulated(emulator) as client:
        path = CHAT.replace("gpt-4o", "fault-endless")
        with client.stream("POST", path, json={**BODY, "stream": True}) as response:
            emulator.outage = Outage("refused")
            with pytest.raises(httpx.TransportError):
                response.read()
        assert eventually(lambda: emulator.open_calls == 0)


def test_refusal_and_its_end_in_quick_succession() -> None:
    """However often the door is closed and opened, it is as the last outage has it."""
    emulator = Emulator()
    with emulated(emulator) as client:
        for _ in range(20):
            emulator.outage = Outage("refused")
            emulator.outage = None
            emulator.outage = Outage("refused")
            assert met(client) == "ConnectError"
            emulator.outage = None
            assert met(client) == "200"


def test_emulator_ends_while_it_refuses() -> None:
    """It stops in good order, and an outage that is set later concerns nobody."""
    emulator = Emulator()
    with emulated(emulator):
        emulator.outage = Outage("refused")
    emulator.outage = None

    assert emulator.on_outage == []


def test_who_hangs_goes_on_hanging() -> None:
    """A call that an outage has swallowed is not answered when it has ended, and costs nothing once it has left."""
    emulator = Emulator()
    with emulated(emulator) as client:
        emulator.outage = Outage("hang")
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as sock:
            sock.sendall(b"GET /openai/v1/models HTTP/1.1\r\nhost: x\r\napi-key: k\r\n\r\n")
            assert eventually(lambda: emulator.open_calls == 1)
            emulator.outage = None
            assert met(client) == "200"
            assert eventually(lambda: emulator.open_calls == 1)
        assert eventually(lambda: emulator.open_calls == 0)


def refused(port: int) -> bool:
    """Whether a connection is refused."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def closed(sock: socket.socket) -> bool:
    """Whether the other side has closed the connection."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
