"""Fakes of providers of generated media. Their responses follow the API references of the real ones."""

from .calling import Fal, Luma, Replicate
from .loopback import HANG_UP, KEY, Call, Job, Provider, Reply, loopback_client, providing
from .polled import Accepted, ElevenLabs, Runway, Stability

__all__ = [
    "HANG_UP", "KEY", "Accepted", "Call", "ElevenLabs", "Fal", "Job", "Luma", "Provider", "Replicate", "Reply", "Runway",
    "Stability", "loopback_client", "providing",
]  # fmt: skip
