"""Redis that is killed, paused and restarted under load, refuses us, or is a cluster."""

import asyncio
import contextlib
import logging
from collections import Counter as Tally
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from chat_api.counting import Claim, Counter, Grant, Store
from chat_api.errors import StoreDown
from chat_api.stores.redis_client import Forgotten, RedisClient, words_of
from chat_api.stores.redis_store import UNCOUNTED, RedisStore
from chat_api.types import Secret
from tests.proxies import free_port
from tests.redis_servers import NODES, RedisCluster, RedisServer, redis_server_of, redis_store
from tests.servers import eventually

pytestmark = pytest.mark.alone  # it looks at what happens when

PATIENCE_SECONDS = 20
CALLERS = 20
REQUESTS = Counter("requests/3600", 10**9, 3600)
TOKENS = Counter("tokens/3600", 10**9, 3600)
PASSWORD = "canary-redis-p4ss/word@"
QUOTED = "canary-redis-p4ss%2Fword%40"

COUNTED, NOT_COUNTED, REFUSED = "counted", "not counted", "503"


class Load:
    """Callers who never stop, each with a subject of its own and one that all share."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_over = False
        self.results: Tally[str] = Tally()
        self.news = asyncio.Event()

    async def _call(self, name: str) -> None:
        charges = ((REQUESTS, 1), (TOKENS, 100))
        claims = [Claim(name, charges, 10), Claim("gpt-4o", charges, 1000)]
        while not self._is_over:
            try:
                admitted = self._store.admit(claims)
                grant = admitted if isinstance(admitted, Grant) else await admitted
            except StoreDown as error:
                self._note(REFUSED if (error.status, error.headers) == (503, ((b"retry-after", b"1"),)) else str(error))
                await asyncio.sleep(0.001)
                continue
            assert grant.refused is None
            self._note(NOT_COUNTED if grant is UNCOUNTED else COUNTED)
            await asyncio.sleep(0.001)
            self._store.settle(claims, grant, (0, -50, 0, -50))

    def _note(self, result: str) -> None:
        self.results[result] += 1
        self.news.set()

    async def more(self, result: str, count: int = 100) -> None:
        """Wait for so many more calls that ended so."""
        enough = self.results[result] + count
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.results[result] < enough:
                self.news.clear()
                await self.news.wait()

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Callers, until the block ends; then each has had an answer."""
        tasks = [asyncio.create_task(self._call(f"caller {number}")) for number in range(CALLERS)]
        try:
            yield
        finally:
            self._is_over = True
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*tasks)


def calls_in_flight(server: RedisServer) -> int:
    """Of how many subjects Redis thinks that they have some."""
    return sum(server.client.hexists(key, "calls") for key in server.client.keys("chat-api:*:limits"))


@pytest.mark.parametrize("failure", ["open", "closed"])
@pytest.mark.parametrize("way", ["kill", "pause"])
def test_outage_under_load(way: str, failure: str, caplog: pytest.LogCaptureFixture) -> None:
    """No caller is held up: calls pass uncounted or get 503, nothing piles up, and all is right when it is back."""
    other = NOT_COUNTED if failure == "open" else REFUSED

    async def main(server: RedisServer) -> None:
        store = redis_store(server.url, failure=failure, timeout_seconds=0.5)
        load = Load(store)
        async with load.going_on():
            await load.more(COUNTED)
            for _ in range(2 if way == "kill" else 1):
                server.kill() if way == "kill" else server.pause()
                await load.more(other, 500)
                assert (store.state()["up"], len(store._link._queue), len(store._link._batch)) == (False, 0, 0)
                server.start() if way == "kill" else server.resume()
                await load.more(COUNTED)
        state = store.state()
        assert set(load.results) == {COUNTED, other}
        assert state["not_counted"] == load.results[NOT_COUNTED]
        assert state["up"] is True
        await store.aclose()
        assert eventually(lambda: calls_in_flight(server) == 0, PATIENCE_SECONDS)
        assert store._flights == {}

    with redis_server_of() as server:
        asyncio.run(main(server))
    lines = [record.getMessage() for record in caplog.records]
    assert ["cannot be asked" in line for line in lines] == [True, False] * (len(lines) // 2)
    assert lines


def test_restarted_server_knows_who_is_in_flight() -> None:
    """A server that has forgotten everything is told at once how many calls each process has in flight."""

    async def main(server: RedisServer) -> None:
        one, other = (redis_store(server.url, lease_seconds=3600) for _ in range(2))
        claims = [Claim("alice", (), 2)]
        grants = [await store.admit(claims) for store in (one, other)]
        server.restart()
        assert await asyncio.to_thread(eventually, lambda: server.client.exists("chat-api:{alice}:limits"), 10)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (one.state()["up"] and other.state()["up"]):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert (await one.admit(claims)).refused is not None
        one.settle(claims, grants[0], ())
        assert (await one.admit(claims)).refused is None
        assert (await other.admit(claims)).refused is not None
        await one.aclose()
        await other.aclose()

    with redis_server_of() as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("failure", ["open", "closed"])
def test_no_server_at_all(failure: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is not there when we start is an outage like any other."""

    async def main() -> None:
        store = redis_store(f"redis://127.0.0.1:{free_port()}/0", failure=failure)
        load = Load(store)
        async with load.going_on():
            await load.more(NOT_COUNTED if failure == "open" else REFUSED)
        assert len(load.results) == 1
        await store.aclose()
        assert len(caplog.records) == 1

    asyncio.run(main())


def test_full_server_is_an_outage() -> None:
    """One that can be read but not written to does not count; it is back when it can be."""

    async def main(server: RedisServer) -> None:
        store = redis_store(server.url)
        load = Load(store)
        async with load.going_on():
            await load.more(COUNTED)
            server.client.config_set("maxmemory", 1)
            await load.more(NOT_COUNTED)
            server.client.config_set("maxmemory", 0)
            await load.more(COUNTED)
        await store.aclose()

    with redis_server_of("--maxmemory-policy", "noeviction") as server:
        asyncio.run(main(server))


def test_server_that_turned_replica_is_an_outage(redis: RedisServer) -> None:
    """One that has become a replica refuses to be written to; we come back to whoever answers to its name."""

    async def main() -> None:
        store = redis_store(redis.url)
        load = Load(store)
        async with load.going_on():
            await load.more(COUNTED)
            redis.client.replicaof("127.0.0.1", free_port())
            await load.more(NOT_COUNTED)
            redis.client.replicaof("NO", "ONE")
            await load.more(COUNTED)
        await store.aclose()

    asyncio.run(main())


def test_connection_that_is_cut(redis: RedisServer) -> None:
    """Where only our connections are cut there are new ones before long."""

    async def main() -> None:
        store = redis_store(redis.url)
        load = Load(store)
        async with load.going_on():
            for _ in range(3):
                await load.more(COUNTED)
                redis.client.client_kill_filter(_type="normal", skipme=True)
            await load.more(COUNTED)
        await store.aclose()

    asyncio.run(main())


# Who may come in, and how.


async def counts(store: RedisStore) -> bool:
    """Whether a call is counted, twice."""
    claims = [Claim("alice", ((REQUESTS, 1),), 10)]
    grants = [await store.admit(claims) for _ in range(2)]
    await store.aclose()
    return [grant is UNCOUNTED for grant in grants] == [False, False]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(f"redis://:{QUOTED}@127.0.0.1:{{port}}/0", True, id="password"),
        pytest.param(f"redis://default:{QUOTED}@127.0.0.1:{{port}}/2", True, id="default-user"),
        pytest.param(f"redis://gateway:{QUOTED}@127.0.0.1:{{port}}", True, id="user"),
        pytest.param(f"valkey://gateway:{QUOTED}@127.0.0.1:{{port}}", True, id="valkey"),
        pytest.param(f"unix://:{QUOTED}@{{folder}}/redis.sock?db=1", True, id="socket"),
        pytest.param("redis://127.0.0.1:{port}", False, id="no-password"),
        pytest.param(f"redis://:{QUOTED}x@127.0.0.1:{{port}}", False, id="wrong-password"),
        pytest.param(f"redis://reader:{QUOTED}@127.0.0.1:{{port}}", False, id="may-not-write"),
        pytest.param(f"redis://:{QUOTED}@127.0.0.1:{{port}}/99", False, id="no-such-database"),
    ],
)
def test_ways_in(protected: RedisServer, url: str, expected: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Each part of a URL counts, and its password is told to nobody but Redis."""
    caplog.set_level(logging.DEBUG)
    url = url.format(port=protected.port, folder=protected.folder)

    async def main() -> None:
        store = redis_store(url)
        told = [repr(store), str(vars(store._link)), repr(store._link._client), str(vars(store._link._client))]
        assert await counts(store) is expected
        told += [str(store.state()), caplog.text]
        assert not [text for text in told if "canary" in text]
        assert store._link.name in (f"127.0.0.1:{protected.port}", f"{protected.folder}/redis.sock")

    asyncio.run(main())


@pytest.fixture(scope="module")
def protected() -> Iterator[RedisServer]:
    """A server that lets in who knows the password."""
    with redis_server_of("--requirepass", PASSWORD, "--unixsocket", "redis.sock", password=PASSWORD) as server:
        for user, rights in (("gateway", "+@all"), ("reader", "+@read")):
            server.client.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", "~*", rights)
        yield server


@pytest.mark.parametrize("text", [f"no {PASSWORD}", f"no redis://:{QUOTED}@host", ""], ids=["plain", "quoted", "none"])
def test_words_of_an_error(text: str) -> None:
    """Whoever would repeat the password in an error is corrected; an error without words has a name."""
    words = words_of(ValueError(text), Secret(f"redis://:{QUOTED}@host"))
    assert words == text.replace(PASSWORD, "***").replace(QUOTED, "***") or (text, words) == ("", "ValueError")


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "not-trusted"])
def test_tls(tmp_path: Path, trusted: bool) -> None:
    """Over TLS the server's certificate is verified."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    files = {name: tmp_path / f"{name}.pem" for name in ("key", "chain", "ca")}
    certificate.private_key_pem.write_to_path(files["key"])
    certificate.cert_chain_pems[0].write_to_path(files["chain"])
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(files["ca"])
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(files["chain"]), "--tls-key-file", str(files["key"]))
    with redis_server_of(*options, "--tls-ca-cert-file", str(files["ca"]), "--tls-auth-clients", "no"):
        store = redis_store(f"rediss://localhost:{port}?ssl_ca_certs={files['ca']}")
        assert asyncio.run(counts(store)) is trusted


# A cluster.


def test_cluster_counts_subjects_wherever_they_are(redis_cluster: RedisCluster) -> None:
    """Over three nodes each subject is counted on its own one; from two processes there is one truth."""

    async def main() -> None:
        both = [redis_store(node.url) for node in redis_cluster.nodes[:2]]
        counter = Counter("requests", 7, 3600)
        claims = [[Claim(f"subject {number}", ((counter, 1),), 100)] for number in range(60)]
        grants = await asyncio.gather(*(store.admit(claim) for claim in claims for _ in range(5) for store in both))
        assert Tally(grant.refused for grant in grants) == {None: 60 * 7, 0: 60 * 3}
        for store in both:
            await store.aclose()

    asyncio.run(main())
    stored = [len(node.client.keys("chat-api:{subject*")) for node in redis_cluster.nodes]
    assert sum(stored) == 60
    assert min(stored) > 5


def test_cluster_and_claims_of_two_nodes(redis_cluster: RedisCluster) -> None:
    """A call that claims of two subjects in two nodes is granted by both, or charged by none."""

    async def main() -> None:
        store = redis_store(redis_cluster.url)
        scarce, plenty = Counter("tokens", 100, 3600), Counter("tokens", 1000, 3600)
        names = [f"model {number}" for number in range(12)]
        for name in names:
            claims = [Claim("two nodes", ((plenty, 10),), 100), Claim(name, ((scarce, 60),), 100)]
            grant = await store.admit(claims)
            assert (grant.refused, [reading.left for reading in grant.readings][1]) == (None, 40)
            assert (await store.admit(claims)).refused == 1
            store.settle(claims, grant, (-5, -60))
        last = await store.admit(
            [Claim("two nodes", ((plenty, 0),), 1), *(Claim(name, ((scarce, 0),)) for name in names)]
        )
        assert [reading.left for reading in last.readings] == [940] + [100] * 12
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("nth", range(NODES))
def test_node_that_has_forgotten(redis_cluster: RedisCluster, nth: int) -> None:
    """Of each node it is found out that it has lost what was counted, though it answers as before."""

    async def main() -> None:
        client = RedisClient(Secret(redis_cluster.url), ())
        await client.open()
        await client.look()
        redis_cluster.nodes[nth].client.flushall()
        with pytest.raises(Forgotten, match="it has forgotten what was counted"):
            await client.look()
        await client.aclose()
        await client.open()
        await client.look()
        await client.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("database", ["/0", "/1"])
def test_cluster_has_one_database(redis_cluster: RedisCluster, database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of a cluster only database 0 can be asked for; what is wrong with another is said."""
    store = redis_store(redis_cluster.url.removesuffix("/0") + database)
    assert asyncio.run(counts(store)) is (database == "/0")
    assert [record.getMessage() for record in caplog.records if "cluster mode" not in record.getMessage()] == []
