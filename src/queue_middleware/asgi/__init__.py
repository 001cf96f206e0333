"""Calling the wrapped application: the scope, the replayed request, the response, cancellation, lifespan.

May import: `jobs`, `settings`, `background` and what lies below them; never `events` or `outbound`, its siblings.
Begin with `replay`.
"""
