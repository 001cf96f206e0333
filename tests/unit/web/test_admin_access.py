"""Who may use the routes of operators."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import HTTPConnection

from queue_middleware import Admin, QueueMiddleware, Settings
from queue_middleware.errors import RateLimited, SettingsError, Unauthorized, UnknownRoute
from queue_middleware.web.admin_access import MAX_WRONG_TOKENS, AdminAccess
from tests.support.clock import Seconds

TOKEN = "0123456789abcdef"


def scope(authorization: str | None = None, address: str = "192.0.2.1") -> dict[str, Any]:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    return {"type": "http", "headers": headers, "client": (address, 1), "path": "/"}


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
async def test_the_token_identifies_an_operator(authorization: str) -> None:
    assert await AdminAccess(TOKEN).identify(scope(authorization)) == Admin("admin", "operate", reveal=True)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Key {TOKEN}", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xe9", TOKEN],
)
async def test_a_missing_or_wrong_token_is_refused(authorization: str | None) -> None:
    with pytest.raises(Unauthorized) as refusal:
        await AdminAccess(TOKEN).identify(scope(authorization))
    assert TOKEN[:-1] not in refusal.value.detail
    assert refusal.value.headers == ((b"www-authenticate", b"Bearer"),)


async def test_wrong_tokens_are_limited_by_address_and_the_right_one_is_still_accepted() -> None:
    clock = Seconds(0.0)
    access = AdminAccess(TOKEN, clock)
    for _ in range(MAX_WRONG_TOKENS):
        with pytest.raises(Unauthorized):
            await access.identify(scope("Bearer wrong"))
    with pytest.raises(RateLimited):
        await access.identify(scope("Bearer wrong"))
    with pytest.raises(Unauthorized):
        await access.identify(scope("Bearer wrong", "192.0.2.2"))
    assert await access.identify(scope(f"Bearer {TOKEN}"))
    clock.now += 61
    with pytest.raises(Unauthorized):
        await access.identify(scope("Bearer wrong"))


async def test_without_operators_the_routes_do_not_exist() -> None:
    with pytest.raises(UnknownRoute):
        await AdminAccess(None).identify(scope(f"Bearer {TOKEN}"))


async def test_a_function_decides_by_the_connection() -> None:
    known = {"192.0.2.1": "carol", "192.0.2.2": Admin("dave", "read")}

    async def admins(connection: HTTPConnection) -> Admin | str | None:
        assert connection.client
        return known.get(connection.client.host)

    access = AdminAccess(admins)
    assert await access.identify(scope()) == Admin("carol", "operate", reveal=False)
    assert await access.identify(scope(address="192.0.2.2")) == Admin("dave", "read", reveal=False)
    with pytest.raises(UnknownRoute):
        await access.identify(scope(f"Bearer {TOKEN}", "192.0.2.3"))


@pytest.mark.parametrize("found", [True, 3, b"carol", Admin("carol", "write")])  # type: ignore[arg-type]
async def test_a_function_that_returns_something_else_is_a_defect(found: Any) -> None:
    async def admins(connection: HTTPConnection) -> Any:
        return found

    with pytest.raises(TypeError, match="it returns a name, an Admin, or None"):
        await AdminAccess(admins).identify(scope())


@pytest.mark.parametrize("found", ["", "car\nol", "c" * 257, "\ud800", Admin(""), Admin(3)])  # type: ignore[arg-type]
async def test_a_name_that_cannot_be_recorded_is_a_defect_and_not_the_fault_of_the_client(found: Any) -> None:
    async def admins(connection: HTTPConnection) -> Any:
        return found

    with pytest.raises(TypeError, match="1 to 256 printable characters"):
        await AdminAccess(admins).identify(scope())


@pytest.mark.parametrize("admin", ["short", "0123456789 abcdef", "0123456789abcd\xe9f", 3, True])
def test_an_unusable_token_is_refused_and_not_repeated(admin: Any) -> None:
    with pytest.raises(SettingsError, match="a token of 16 to 512 ASCII characters") as refusal:
        Settings.load({"admin": admin}, {})
    assert not isinstance(admin, str) or admin not in refusal.value.detail


def test_the_token_comes_from_the_environment_and_is_not_shown() -> None:
    settings = Settings.load({}, {"QUEUE_ADMIN_TOKEN": TOKEN})
    assert settings.admin == TOKEN
    assert TOKEN not in repr(settings)
    with pytest.raises(SettingsError, match="QUEUE_ADMIN_TOKEN: it is a token"):
        Settings.load({}, {"QUEUE_ADMIN_TOKEN": "short"})


def test_a_blocking_function_is_refused() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(SettingsError, match=r"admin: .* is not async"):
        QueueMiddleware(app, admin=lambda connection: "carol")  # type: ignore[arg-type,return-value]
