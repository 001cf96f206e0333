import pytest
from starlette.requests import HTTPConnection

from queue_middleware.errors import BadRequest, Unauthorized
from queue_middleware.jobs.models import IDENTITY_PREFIX
from queue_middleware.web.auth import Authenticator, client_of, name_of
from queue_middleware.webhooks.formats.fal import user_id
from tests.support.raw_asgi import Message, http_scope

KEYS = ("alice:0123456789", "key-without-a-name")


def sent(*headers: tuple[bytes, bytes]) -> Message:
    return http_scope("GET", b"/", headers=headers)


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Key alice:0123456789"),
        (b"authorization", b"key  alice:0123456789 "),
        (b"authorization", b"Bearer alice:0123456789"),
        (b"x-api-key", b"alice:0123456789"),
    ],
)
async def test_a_key_in_each_header(header: tuple[bytes, bytes]) -> None:
    assert await Authenticator(KEYS).authenticate(sent(header)) == "alice"


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ((), "a key is needed"),
        (((b"authorization", b"Basic alice:0123456789"),), "a key is needed"),
        (((b"authorization", b"Key alice:0123456780"),), "invalid key credentials"),
        (((b"authorization", b"Key alice"),), "invalid key credentials"),
        (((b"authorization", b"Key \xff\xfe"),), "invalid key credentials"),
        (((b"x-api-key", b""),), "invalid key credentials"),
    ],
)
async def test_missing_and_invalid_keys_are_refused(headers: tuple[tuple[bytes, bytes], ...], error: str) -> None:
    with pytest.raises(Unauthorized, match=error) as refusal:
        await Authenticator(KEYS).authenticate(sent(*headers))
    assert (refusal.value.status, refusal.value.headers) == (401, ((b"www-authenticate", b"Key, Bearer"),))


def test_a_name_is_never_the_key() -> None:
    assert name_of("alice:0123456789") == "alice"
    for key in ("key-without-a-name", "two words:x", ":0123456789", "alice:"):
        name = name_of(key)
        assert name.startswith("key-")
        assert key not in name
        assert name == name_of(key)


async def test_a_service_can_authenticate_itself() -> None:
    async def authenticate(connection: HTTPConnection) -> str | None:
        return connection.headers.get("x-user")

    access = Authenticator((), authenticate)
    assert access.required
    assert await access.authenticate(sent((b"x-user", b"bob"))) == "bob"
    with pytest.raises(Unauthorized):
        await access.authenticate(sent())


async def test_keys_and_authenticate_can_be_combined() -> None:
    async def authenticate(connection: HTTPConnection) -> str | None:
        return "by cookie" if connection.cookies else None

    access = Authenticator(KEYS, authenticate)
    assert await access.authenticate(sent((b"x-api-key", b"alice:0123456789"))) == "alice"
    assert await access.authenticate(sent((b"x-api-key", b"wrong"), (b"cookie", b"a=b"))) == "by cookie"


ALICE, BOB = b"alice:0123456789", b"bob:0123456789"


@pytest.mark.parametrize(
    "headers",
    [
        ((b"authorization", b"Bearer the-applications-own"), (b"x-api-key", ALICE)),
        ((b"x-api-key", ALICE), (b"authorization", b"Bearer the-applications-own")),
        ((b"authorization", b"Basic YTpi"), (b"authorization", b"Key " + ALICE)),
        ((b"authorization", b"Key wrong"), (b"authorization", b"Bearer " + ALICE)),
        ((b"x-api-key", b"wrong"), (b"x-api-key", ALICE)),
        ((b"x-api-key", b"wrong"), (b"authorization", b"Key " + ALICE)),
        ((b"x-api-key", ALICE), (b"authorization", b"Key " + ALICE)),
        ((b"x-api-key", b"alice:another-one"), (b"authorization", b"Key " + ALICE)),
    ],
)
async def test_any_known_key_is_sufficient(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    assert await Authenticator(("alice:0123456789", "alice:another-one")).authenticate(sent(*headers)) == "alice"


@pytest.mark.parametrize("first", ["authorization", "x-api-key"])
async def test_keys_of_two_clients_are_refused(first: str) -> None:
    headers = [(b"authorization", b"Key " + ALICE), (b"x-api-key", BOB)]
    if first == "x-api-key":
        headers.reverse()
    with pytest.raises(BadRequest, match="alice, bob"):
        await Authenticator(("alice:0123456789", "bob:0123456789")).authenticate(sent(*headers))


async def test_the_number_of_checked_keys_is_limited() -> None:
    headers = [(b"x-api-key", b"wrong")] * 1000
    with pytest.raises(Unauthorized, match="invalid key"):
        await Authenticator(KEYS).authenticate(sent(*headers, (b"x-api-key", ALICE)))
    assert await Authenticator(KEYS).authenticate(sent(*headers[:7], (b"x-api-key", ALICE))) == "alice"


@pytest.mark.parametrize("name", ["", "x" * 257, 7, object(), "half \ud800", "nul \0"])
async def test_an_invalid_identity_is_an_error_of_the_service(name: object) -> None:
    async def authenticate(connection: HTTPConnection) -> str | None:
        return name  # type: ignore[return-value]

    with pytest.raises(TypeError, match="authenticate returned"):
        await Authenticator((), authenticate).authenticate(sent())


def test_without_keys_and_authenticate_no_authentication_is_required() -> None:
    assert not Authenticator().required


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:5678", "192.0.2.7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("id:alice", ""),
        ("ID:alice", ""),
        (" id:alice", ""),
        ("id:alice, 192.0.2.7", ""),
        ("id:192.0.2.7", ""),
        ("192.0.2.7, id:alice", ""),
        ("fe80::1%id:alice\n" + "x" * 100, ""),
        ("/run/queue.sock", ""),
        ("unknown", ""),
        ("", ""),
        ("1" * 10**6, ""),
        (7, ""),
    ],
)
def test_text_for_an_address_is_not_an_identity(text: object, address: str) -> None:
    scope = {**sent(), "client": (text, 50000)}
    assert client_of(None, scope) == address
    assert not client_of(None, scope).startswith(IDENTITY_PREFIX)
    assert client_of("alice", scope) == "id:alice"


@pytest.mark.parametrize("client", [None, ()])
def test_a_client_without_an_address(client: object) -> None:
    assert client_of(None, {**sent(), "client": client}) == ""


def test_an_identity_that_looks_like_an_address_is_an_identity() -> None:
    assert client_of("192.0.2.7", sent()) == "id:192.0.2.7"
    assert client_of("id:alice", sent()) == "id:id:alice"


@pytest.mark.parametrize(
    ("identity", "header"),
    [(None, "anonymous"), ("", "anonymous"), ("alice@example.com", "alice@example.com"), ("a b%ä\n", "a%20b%25%C3%A4%0A")],
)
def test_the_name_in_a_webhook_is_never_empty_and_always_a_header(identity: str | None, header: str) -> None:
    assert user_id(identity) == header


@pytest.mark.parametrize("headers", [(), ((b"authorization", b"Bearer a.token.of-the-service"),)])
async def test_without_configured_keys_none_is_requested(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    async def authenticate(connection: HTTPConnection) -> str | None:
        return None

    with pytest.raises(Unauthorized, match="this service does not know the sender") as refusal:
        await Authenticator((), authenticate).authenticate(sent(*headers))
    assert "key" not in refusal.value.detail.lower()
