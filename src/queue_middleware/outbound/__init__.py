"""An HTTP client for addresses that a submitter names: it cannot reach private networks, and it follows no redirect.

May import: `jobs`, `settings`, `background` and what lies below them; never `events` or `asgi`, its siblings.
Begin with `client`, then `guard` (which addresses are allowed) and `connector` (how a checked address is connected).
"""
