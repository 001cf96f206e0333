"""Stand-ins for providers of generated media. What they answer follows the API references of the real ones."""

from .asked import Accepted, ElevenLabs, Runway, Stability
from .callers import Fal, Luma, Replicate
from .loopback import HANG_UP, KEY, Call, Job, Provider, Reply, loopback_client, providing

__all__ = [
    "HANG_UP", "KEY", "Accepted", "Call", "ElevenLabs", "Fal", "Job", "Luma", "Provider", "Replicate", "Reply", "Runway",
    "Stability", "loopback_client", "providing",
]  # fmt: skip
