"""Finds environment variables that look like options and are none: most are misspelled."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import fields

from queue_middleware.settings import Settings, option_variable

_TEST_VARIABLES = "QUEUE_TESTS"
"""Prefix of the variables that start like options and belong to `testing`."""


def stray_variables(environ: Mapping[str, str] | None = None) -> list[tuple[str, bool]]:
    """A sentence for each variable `QUEUE_…` that is not an option, and whether an option has a similar name."""
    variables = {option_variable(option.name) for option in fields(Settings)}
    # Also with the spelling that follows from the option's name.
    words = {name.removeprefix("QUEUE_"): name for name in variables}
    words |= {option.name.upper(): option_variable(option.name) for option in fields(Settings)}
    found = []
    for name in sorted(os.environ if environ is None else environ):
        if name.startswith("QUEUE_") and name not in variables and not name.startswith(_TEST_VARIABLES):
            near = difflib.get_close_matches(name.removeprefix("QUEUE_"), list(words), n=1)
            hint = f"; did you mean {words[near[0]]}?" if near else " (it may be another program's)"
            found.append((f"the environment variable {name} is not an option of the queue and is ignored{hint}", bool(near)))
    return found
