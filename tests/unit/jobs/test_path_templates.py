"""Templates: what is read from the scope of a call, never with a value of the client, and which paths they stand for."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_middleware.jobs.path_templates import MAX_LENGTH, compile_template, template_of


def after_call(path: str, template: str, **entries: Any) -> dict[str, Any]:
    """The scope of a call as FastAPI leaves it."""
    return {"path": path, "root_path": "", "route": SimpleNamespace(path=template), **entries}


def mount(path: str, *routes: Any) -> Any:
    """A `Mount` of Starlette, or the router at the top."""
    return SimpleNamespace(path=path, routes=[SimpleNamespace(path="/leaf"), *routes])


def mounted(root_path: str, *mounts: Any, **entries: Any) -> dict[str, Any]:
    """The scope of a call of `/items/1` below mounts."""
    return after_call(f"{root_path}/items/1", "/items/{id}", root_path=root_path, router=mount("", *mounts), **entries)


@pytest.mark.parametrize(
    ("scope", "root_path", "template"),
    [
        (after_call("/items/1", "/items/{id}"), "", "/items/{id}"),
        ({"path_template": "/items/{id:int}"}, "", "/items/{id:int}"),
        ({}, "", None),
        (after_call("/a", "no slash"), "", None),
        (after_call("/a", "/" + "x" * MAX_LENGTH), "", None),
        (mounted("/api/sub", mount("/api", mount("/sub")), app_root_path=""), "/api", "/sub/items/{id}"),
        (mounted("/api/sub", mount("/sub")), "/api", "/sub/items/{id}"),
        (mounted("/proxy/sub", mount("/sub"), app_root_path="/proxy"), "/proxy", "/sub/items/{id}"),
        (mounted("/acme", mount("/{tenant}"), path_params={"tenant": "acme", "id": 1}), "", "/{tenant}/items/{id}"),
        (mounted("/t-acme", mount("/t-{tenant}"), path_params={"tenant": "acme"}), "", "/t-{tenant}/items/{id}"),
        (mounted("/7", mount("/{id}"), path_params={"id": "1"}), "", "/{id}/items/{id}"),
        (mounted("/a/b/c/x", mount("/{p:path}/c", mount("/{q}"))), "", "/{p:path}/c/{q}/items/{id}"),
        (mounted("/v1/x", SimpleNamespace(host="h", routes=[mount("/v1", mount("/x"))])), "", "/v1/x/items/{id}"),
        (mounted("/acme", path_params={}), "", None),
        (mounted("/acme", mount("/other")), "", None),
        (mounted("/acme/sub", mount("/{tenant}")), "", None),
        (mounted("/acme", mount("/{tenant}")), "/elsewhere", None),
        (after_call("/acme/items/1", "/items/{id}", root_path="/acme"), "", None),
    ],
)  # fmt: skip
def test_the_template_is_read_from_the_scope(scope: Any, root_path: str, template: str | None) -> None:
    assert template_of(scope, root_path) == template


PIECES = st.sampled_from(["/", "-", ".", "a", "{a}", "{b}", "{p:path}", "{", "}", "{x", "(", "\\"])


@given(st.lists(PIECES, max_size=8), st.text("/-.a{}(\\", max_size=12))
@example(["/", "{a}", "-", "{b}", "-", "{a}"], "/-----")
@example(["/", "{a}", "{b}", ".a"], "/a.a.a")
def test_a_pattern_matches_what_its_template_stands_for(pieces: list[str], path: str) -> None:
    """As a plain pattern does, which takes exponential time for some paths."""
    template = "".join(pieces)
    plain = re.sub(
        r"(\{[^{}:]*\})|(\{[^{}:]*:path\})|(.)",
        lambda match: "[^/]+" if match[1] else ".*" if match[2] else re.escape(match[3]),
        template,
    )
    assert bool(compile_template(template).match(path)) == bool(re.fullmatch(plain, path))


@pytest.mark.parametrize(
    ("template", "path", "fits"),
    [
        ("/items/{id:int}", "/items/17", True),
        ("/items/{id:int}", "/items/x", False),
        ("/items/{id:float}/x", "/items/1.5/x", True),
        ("/items/{id:uuid}", "/items/6f1c0f5e-3b0e-4b0e-9d7e-0123456789ab", True),
        ("/items/{id:uuid}", "/items/new", False),
        ("/items/v{id:int}", "/items/v1", True),
    ],
)
def test_types_of_parameters(template: str, path: str, fits: bool) -> None:
    assert bool(compile_template(template).match(path)) is fits


def test_no_path_takes_long() -> None:
    """A plain pattern would take minutes: the paths have thousands of places where each parameter may end."""
    for template in ("/{a}-{b}-{c}-{d}-{e}.json", "/{a}{b}{c}{d}{e}/x", "/{p:path}-{b}-{c}-{d}/x"):
        assert not compile_template(template).match("/" + "-" * 2046)
