"""Running claimed jobs in this process.

May import: `tasks`, `asgi`, `events`, `jobs` and what lies below them; never `stores`: it is given the ports.
Begin with `executor`, which runs one attempt from its claim to its commit; `worker` decides when.
"""
