"""What an answer of a provider means, asked for or sent to a callback URL: not yet, done, failed, or nothing at all.

One reading for both ways, by the same `PollConfig` (AsyncQueue contract, polling; where we are better, 3, 4 and 12).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

from queue_middleware.json_text import MISSING, encode, read_json
from queue_middleware.models import StoredResponse
from queue_middleware.taskspec import PollConfig
from queue_middleware.value import Value
from queue_middleware.waiting import COMMON_FAILURES

from .pollconfig import spelled, words
from .providers import provider_of, recognise
from .templates import Start, fill, header, read_path

MOST_REDIRECTS = 5
_PATIENCE = 2
"""How often something that is probably final is asked again: a 404 just after the start, a 5xx in place of the result."""
_PASSING = frozenset({408, 425, 429})
_SEE_OTHER = 303
_REDIRECTS = frozenset({301, 302, 307, 308})
_ACCEPTED = 202
_LONGEST_TEXT = 500
_REASONS = ("error.message", "error", "detail.message", "detail", "message", "errors", "failure", "failure_reason", "reason")
_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")


class Plan(Value, frozen=True):
    """Where a task is asked for, worked out once from the answer to its first call."""

    url: str
    result_url: str | None
    """Where the result is fetched from, when it is not in the answer."""


class Running(Value, frozen=True):
    """Not done yet."""

    status: str | None = None
    """In the provider's word, where he has one."""
    fraction: float | None = None
    """0 to 1, where he says so."""


class Done(Value, frozen=True):
    """The work was done, and this is its result."""

    response: StoredResponse


class Fetch(Value, frozen=True):
    """The work was done; the result has to be fetched from `url`."""

    url: str


class Moved(Value, frozen=True):
    """The same question has to be asked at `url`."""

    url: str


class Failed(Value, frozen=True):
    """The work has failed."""

    error: str


class Trouble(Value, frozen=True):
    """Nothing can be said: the question itself failed, and is to be asked again."""

    error: str
    said: str = ""
    """What the other side gave as its reason. Not for logs."""


Reading = Running | Done | Fetch | Moved | Failed | Trouble


def make_plan(config: PollConfig, start: Start) -> Plan:
    """Where to ask and where to fetch. Raises `Unfillable` when the answer does not say."""
    result = config.result_url_template
    return Plan(fill(config.url_template, start), None if result is None else fill(result, start))


# --- what was asked for


def read_status(config: PollConfig, plan: Plan, url: str, answer: StoredResponse, failures: int) -> Reading:
    """What the answer to a question at `url` means. `failures` questions before it, without a break, came to nothing."""
    if (elsewhere := _redirect(url, answer)) is not None:
        return elsewhere
    if not 200 <= answer.status < 300:
        return _refused(f"the question for the status was answered {answer.status}", answer, failures, 404)
    content = read_json(answer.body)
    said = read_path(content, config.status_path) if config.status_path else answer.status
    word = spelled(said)
    if word in words(config.fail_values):
        return Failed(_reason(content, config, said))
    if word in words(config.done_values) or (answer.status != _ACCEPTED and _is_over(config, word)):
        return Fetch(plan.result_url) if plan.result_url is not None else Done(_result(config, answer, content))
    return _running(config, content, said)


def read_result(url: str, answer: StoredResponse, failures: int) -> Reading:
    """What the answer to fetching the result means: what is no 2xx is the failure of the work (fal: COMPLETED, then 422)."""
    if (elsewhere := _redirect(url, answer)) is not None:
        return Fetch(elsewhere.url) if isinstance(elsewhere, Moved) else elsewhere
    if answer.status == _ACCEPTED:
        return Trouble("the result is not there yet")
    if 200 <= answer.status < 300:
        return Done(answer)
    return _refused(f"the result was answered {answer.status}", answer, failures, *range(500, 600))


def _redirect(url: str, answer: StoredResponse) -> Fetch | Moved | None:
    location = header(answer.headers, b"location")
    if location is None or answer.status not in _REDIRECTS | {_SEE_OTHER}:
        return None
    try:
        target = urljoin(url, location)
    except ValueError:
        return None
    return Fetch(target) if answer.status == _SEE_OTHER else Moved(target)


def _refused(text: str, answer: StoredResponse, failures: int, *perhaps: int) -> Trouble | Failed:
    """An answer that is no 2xx. Those of `perhaps` are final only when they come again and again."""
    said = reason_of(read_json(answer.body))
    passing = answer.status in _PASSING or (answer.status >= 500 and answer.status not in perhaps)
    if passing or (answer.status in perhaps and failures < _PATIENCE):
        return Trouble(text, said)
    return Failed(f"{text}: {said}" if said else text)


def _is_over(config: PollConfig, word: str | None) -> bool:
    return bool(config.running_values) and word not in words(config.running_values)


def _running(config: PollConfig, content: Any, status: Any) -> Running:
    said = read_path(content, config.progress_path) if config.progress_path else MISSING
    fraction = float(said) if isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said <= 1 else None
    return Running(_short(str(status)) if spelled(status) is not None else None, fraction)


def _result(config: PollConfig, answer: StoredResponse, content: Any) -> StoredResponse:
    """The part that `resultPath` names: a text as it is, all else as JSON; the whole answer where it has no such part."""
    part = read_path(content, config.result_path) if config.result_path else MISSING
    if part is MISSING:
        return answer
    if isinstance(part, str):
        return StoredResponse(200, (_TEXT,), part.encode())
    return StoredResponse(200, (_JSON,), encode(part))


def _reason(content: Any, config: PollConfig, status: Any) -> str:
    """The text at `errorPath`, whatever is there; without one, what the status says."""
    found = read_path(content, config.error_path) if config.error_path else MISSING
    if found is MISSING or found is None or found == "":
        return reason_of(content) or f"the provider says {_short(str(status))}"
    return _short(found if isinstance(found, str) else encode(found).decode())


def reason_of(content: Any) -> str:
    """What most services call the reason of an error, in a few words; empty where there is nothing of the kind."""
    for path in (
        "error.message",
        "error",
        "detail.message",
        "detail",
        "message",
        "errors",
        "failure",
        "failure_reason",
        "reason",
    ):
        found = read_path(content, path)
        if isinstance(found, str) and found:
            return _short(found)
        if found is not MISSING and found is not None and not isinstance(found, str):
            return _short(encode(found).decode())
    return ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


# --- what was sent


def read_callback(content: Any, config: PollConfig | None, target: str | None) -> Running | Failed | None:
    """What a call of a task's callback URL means, from its JSON; None: it is the last, and its payload is the result.

    It is read by the task's own `PollConfig`, else by the one of the provider whose host `target` is, else by that of the
    provider who is recognised by the payload. Where none of them finds a status there is only one event: any payload is the
    result, unless it says of itself that something has failed.
    """
    known = config or _config_of(target, content)
    said = read_path(content, known.status_path) if known and known.status_path else MISSING
    word = spelled(said)
    if known is None or word is None:
        return _failure_of_a_stranger(content)
    if word in words(known.fail_values):
        return Failed(_reason(content, known, said))
    if word in words(known.done_values) or _is_over(known, word):
        return None
    return _running(known, content, said)


def _failure_of_a_stranger(content: Any) -> Failed | None:
    for path in ("status", "state"):
        said = read_path(content, path)
        if isinstance(said, str) and said.casefold() in COMMON_FAILURES:
            return Failed(reason_of(content) or f"the provider says {_short(said)}")
    return None


def _config_of(target: str | None, content: Any) -> PollConfig | None:
    provider = (provider_of(target) if target else None) or recognise(content)
    return provider.poll if provider else None
