"""The ways to a server and past its door: unix socket, TLS, passwords, and a user with no more rights than needed."""

import asyncio
import re
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from bridge.domain.values import Committed
from bridge.errors import ConfigError, RegistryUnavailable
from bridge.tls import client_context
from tests.certificates import Authority, Pair
from tests.contract.conftest import OnRedis, acl_command, first, opened, stored, text
from tests.servers import Flavour, RedisServer, free_port

FLAVOURS: tuple[Flavour, ...] = ("redis", "valkey")
ROOT = Path(__file__).parents[2]


async def test_another_database(real: OnRedis) -> None:
    url = f"redis://bridge:secret@127.0.0.1:{real.server.port}/3"
    async with opened(url) as registry:
        assert isinstance(await registry.commit(first()), Committed)
        assert await stored(registry) == text(5)
    assert await stored(real.registry) is None


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_unix_socket(flavour: Flavour, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # such a path has at most 107 bytes
        path = f"{short}/redis socket"
        with RedisServer(tmp_path, flavour, options=("--unixsocket", path)) as server:
            async with opened(f"unix://{path.replace(' ', '%20')}?db=2", timeout_seconds=0.5) as registry:
                assert isinstance(await registry.commit(first()), Committed)
                server.restart()
                assert await stored(registry) == text(5)
                server.stop()
                with pytest.raises(RegistryUnavailable, match=r"does not answer.*redis\.url"):
                    await registry.load({})


# TLS. The Valkey that the tests bring is built without it, so there something else speaks TLS in front of it, as with
# many hosted servers.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def speaking_tls(
    flavour: Flavour, folder: Path, authority: Authority, *, host: str = "127.0.0.1", asks: bool = False
) -> AsyncIterator[str]:
    """A server that shows a certificate for ``host``, and ``asks`` for one of its clients."""
    pair = authority.issue(f"server-{host}", host)
    port = free_port()
    if flavour == "redis":
        files = f"--tls-cert-file {pair.certificate} --tls-key-file {pair.key} --tls-ca-cert-file {authority.file}"
        options = f"--tls-port {port} --tls-auth-clients {'yes' if asks else 'no'} {files}"
        with RedisServer(folder, flavour, options=tuple(options.split())):
            yield f"rediss://127.0.0.1:{port}"
        return
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(pair.certificate, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65_536):
            writer.write(some)

    with RedisServer(folder, flavour) as server:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
            copies = [asyncio.create_task(copy(reader, inner_writer)), asyncio.create_task(copy(inner_reader, writer))]
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in copies:
                    task.cancel()
                await asyncio.gather(*copies, return_exceptions=True)
                inner_writer.close()
                writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=context):
            yield f"rediss://127.0.0.1:{port}"


def trusting(authority: Authority, pair: Pair | None = None) -> partial[ssl.SSLContext]:
    certificate, key = (str(pair.certificate), str(pair.key)) if pair else ("", "")
    return partial(client_context, "redis", str(authority.file), certificate, key)


@pytest.mark.parametrize("flavour", FLAVOURS)
class TestTls:
    async def test_both_sides_show_a_certificate(self, flavour: Flavour, tmp_path: Path, authority: Authority) -> None:
        pair = authority.issue("bridge")
        async with speaking_tls(flavour, tmp_path, authority, asks=True) as url:
            async with opened(url, tls=trusting(authority, pair)) as registry:
                assert isinstance(await registry.commit(first()), Committed)
                assert await stored(registry) == text(5)
            with pytest.raises(RegistryUnavailable, match=r"redis\.certificate_file"):
                async with opened(url, tls=trusting(authority)):
                    pass

    async def test_an_authority_that_is_not_known(self, flavour: Flavour, tmp_path: Path, authority: Authority) -> None:
        async with speaking_tls(flavour, tmp_path, authority) as url:
            for tls in (None, trusting(Authority(tmp_path / "other"))):
                with pytest.raises(RegistryUnavailable, match=r"cannot be trusted.*redis\.ca_file"):
                    async with opened(url, tls=tls):
                        pass

    async def test_a_certificate_of_another_host(self, flavour: Flavour, tmp_path: Path, authority: Authority) -> None:
        async with speaking_tls(flavour, tmp_path, authority, host="redis.internal") as url:
            with pytest.raises(RegistryUnavailable, match=r"not valid for '127\.0\.0\.1'.*redis\.url to a name"):
                async with opened(url, tls=trusting(authority)):
                    pass

    async def test_files_are_read_again_for_each_connection(
        self, flavour: Flavour, tmp_path: Path, authority: Authority
    ) -> None:
        pair = authority.issue("bridge")
        async with (
            speaking_tls(flavour, tmp_path, authority, asks=True) as url,
            opened(url, tls=trusting(authority, pair)) as registry,
        ):
            good = pair.certificate.read_bytes()
            pair.certificate.write_bytes(b"half of it")
            await registry.close()
            with pytest.raises(RegistryUnavailable, match=r"^redis\.key_file: no certificate in"):
                await registry.load({})
            with pytest.raises(ConfigError, match=r"^redis\.key_file: no certificate in"):
                await registry.open()
            pair.certificate.write_bytes(good)
            await registry.load({})


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_server_that_speaks_no_tls(flavour: Flavour, tmp_path: Path, authority: Authority) -> None:
    with RedisServer(tmp_path, flavour) as server, pytest.raises(RegistryUnavailable, match=r"speak TLS"):
        async with opened(f"rediss://127.0.0.1:{server.port}", tls=trusting(authority), timeout_seconds=1):
            pass


# Passwords and rights.


async def test_a_server_with_a_password(own_server: RedisServer) -> None:
    with Redis.from_url(own_server.url) as client:
        client.config_set("requirepass", "secret")
    for login, remedy in (("", "NOAUTH"), (":wrong@", "WRONGPASS"), ("nobody:secret@", "WRONGPASS")):
        with pytest.raises(RegistryUnavailable, match=rf"{remedy}.*redis\.url") as refused:
            async with opened(f"redis://{login}127.0.0.1:{own_server.port}"):
                pass
        assert "secret" not in str(refused.value)
    async with opened(f"redis://:secret@127.0.0.1:{own_server.port}") as registry:
        assert isinstance(await registry.commit(first()), Committed)


async def test_a_user_without_a_password(own_server: RedisServer) -> None:
    with Redis.from_url(own_server.url, decode_responses=True) as client:
        client.execute_command("ACL", "SETUSER", "bridge", "on", "nopass", "~*", "+@all")
        async with opened(f"redis://bridge@127.0.0.1:{own_server.port}") as registry:
            await registry.tick()
            assert "bridge" in {entry["user"] for entry in client.client_list()}


async def test_rights_that_lack_are_said_and_may_be_given_later(own_server: RedisServer) -> None:
    with Redis.from_url(own_server.url) as client:
        client.execute_command(*acl_command("bridge", "secret"))
        async with opened(f"redis://bridge:secret@127.0.0.1:{own_server.port}") as registry:
            reading = ("info", "sadd", "evalsha", "hmget", "getrange", "type", "watch")
            writing = ("multi", "mset", "xadd", "zadd", "hset", "exec")
            for lacking in ("resetkeys", *(f"-{right}" for right in (*reading, *writing))):
                client.execute_command("ACL", "SETUSER", "bridge", lacking)
                await registry.close()
                with pytest.raises(RegistryUnavailable, match=r"NOPERM.*docs/operations\.md"):
                    await registry.commit(first(members={"online:user": {"ann": True}}))
            client.execute_command(*acl_command("bridge", "secret"))
            assert await stored(registry) is None  # nor was anything done by halves
            assert isinstance(await registry.commit(first()), Committed)


def test_no_right_is_asked_for_that_is_not_used() -> None:
    """That the rights suffice, every other test of this folder shows: `real` has no others."""
    adapters = ROOT / "bridge" / "adapters"
    sources = [*(adapters / "lua").glob("*.lua"), *adapters.glob("re*.py"), adapters / "transaction.py"]
    words = {word.lower() for source in sources for word in re.findall(r"""["']([A-Z]+)["']""", source.read_text())}
    rights = {word.removeprefix("+") for word in acl_command("bridge", "") if word.startswith("+")}
    assert {right for right in rights if not set(right.split("|")) <= words} == set()


async def test_the_rights_end_at_the_key_prefix(real: OnRedis) -> None:
    real.client.set("other:key", "x")
    with Redis.from_url(f"redis://bridge:secret@127.0.0.1:{real.server.port}/0") as own:
        for ask in (lambda: own.get("other:key"), lambda: own.keys("*"), lambda: own.config_get("requirepass")):
            with pytest.raises(NoPermissionError):
                ask()
