"""`queue-middleware requests`: list and inspect requests, and act on them.

May import: what `cli` may import, and the modules of `cli`.
Begin with `add_arguments`, then `listing`.
"""

from __future__ import annotations

import argparse
from typing import Any

from queue_middleware.cli.flags import add_actions

from . import acts, listing, logs, portable, show, transfer

OUTPUTS: dict[str, Any] = {
    "requests list": listing.RequestList,
    "requests show": show.RequestDetail,
    "requests logs": list[logs.LogRow],
    "requests cancel": acts.ActDone,
    "requests replay": acts.ActDone,
    "requests run-now": acts.ActDone,
    "requests export": list[portable.PortableRequest],
    "requests import": transfer.ImportDone,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all actions."""
    actions = add_actions(parser)
    for module in (listing, show, logs, acts, transfer):
        module.add_action_to(actions)
