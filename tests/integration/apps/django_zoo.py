"""Django in one file: async views at the root, the same as sync views below `/sync`. Its ASGI interface has no lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import include, path, re_path, reverse
from django.views.decorators.http import require_POST, require_safe

from . import ALPHABET, CHUNKS, ETAG, LARGE, REPEATED, TEXT, described, digest, hang_here, log_here, pairs

View = Callable[..., HttpResponseBase]


def _lists(fields: Any) -> list[list[str]]:
    return pairs((name, value) for name, values in fields.lists() for value in values)


def echo(request: HttpRequest, rest: str = "") -> HttpResponseBase:
    seen = described(request.scope, request.body, url=request.build_absolute_uri(), args=_lists(request.GET), rest=rest)
    return JsonResponse(seen)


@require_POST
def form(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse(_lists(request.POST), safe=False)


@require_POST
def upload(request: HttpRequest) -> HttpResponseBase:
    files = [
        [name, file.name, file.content_type, digest(file.read())]
        for name, uploads in request.FILES.lists()
        for file in uploads
    ]  # fmt: skip
    return JsonResponse({"fields": _lists(request.POST), "files": files})


def mirror(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(request.body, content_type=request.headers.get("content-type", "application/octet-stream"))


def cookies(request: HttpRequest) -> HttpResponseBase:
    response = JsonResponse(request.COOKIES)
    response.set_cookie("session", "a b", httponly=True)
    response.set_cookie("theme", "dark", samesite="strict")
    response.delete_cookie("old")
    return response


def redirect(request: HttpRequest) -> HttpResponseBase:
    if request.method == "POST":
        return HttpResponseRedirect(request.build_absolute_uri(reverse("text")))
    return HttpResponseRedirect("/echo?from=redirect")


def file(request: HttpRequest) -> HttpResponseBase:
    return FileResponse(ALPHABET.open("rb"))


def conditional(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse("fresh", headers={"etag": ETAG})


def stream(request: HttpRequest) -> HttpResponseBase:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            yield chunk

    return StreamingHttpResponse(chunks(), content_type="application/octet-stream")


def events(request: HttpRequest) -> HttpResponseBase:
    async def lines() -> AsyncIterator[str]:
        for number in range(5):
            yield f"data: {number}\n\n"

    return StreamingHttpResponse(lines(), content_type="text/event-stream")


def status(request: HttpRequest, code: int) -> HttpResponseBase:
    return HttpResponse(status=code)


def refused(request: HttpRequest) -> HttpResponseBase:
    raise PermissionDenied


def boom(request: HttpRequest) -> HttpResponseBase:
    raise RuntimeError("secret detail")


@require_POST
def json(request: HttpRequest) -> HttpResponseBase:
    from json import loads

    try:
        return JsonResponse({"square": int(loads(request.body)["number"]) ** 2})
    except (ValueError, KeyError, TypeError):
        return JsonResponse({"detail": "not a number"}, status=422)


@require_safe
def text(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(TEXT, content_type="text/plain; charset=utf-8")


def headers(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(b"ok", headers={name: value for name, value in REPEATED if value.isascii()})


def empty(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse()


def large(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(LARGE, content_type="application/octet-stream")


def log(request: HttpRequest) -> HttpResponseBase:
    log_here()
    return HttpResponse()


async def hang(request: HttpRequest) -> HttpResponseBase:
    await hang_here()
    return HttpResponse()


def _async(view: View) -> Callable[..., Awaitable[HttpResponseBase]]:
    """The same view on Django's async path, where it runs in the event loop and not in a thread."""

    async def in_loop(*args: Any, **options: Any) -> HttpResponseBase:
        return view(*args, **options)

    return in_loop


def _routes(adapt: Callable[[View], Any]) -> list[Any]:
    plain = [
        form, upload, mirror, cookies, redirect, file, conditional, stream, events, refused, boom, json, headers, empty, large,
        log,
    ]  # fmt: skip
    return [
        path("echo", adapt(echo)),
        re_path(r"^echo/(?P<rest>.*)$", adapt(echo)),
        path("status/<int:code>", adapt(status)),
        path("text", adapt(text), name="text"),
        *(path(view.__name__, adapt(view)) for view in plain),
    ]


urlpatterns = [path("sync/", include(_routes(lambda view: view))), path("", include(_routes(_async))), path("hang", hang)]


def make() -> Any:
    if not settings.configured:
        settings.configure(
            SECRET_KEY="not one",
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=__name__,
            DATA_UPLOAD_MAX_MEMORY_SIZE=None,
            MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.http.ConditionalGetMiddleware"],
            LOGGING_CONFIG=None,
        )
        django.setup()
    return get_asgi_application()
