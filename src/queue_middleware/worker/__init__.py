"""Running claimed jobs in this process.

May import: `tasks`, `asgi`, `events`, `jobs` and what lies below them; never `stores`: it is given the ports.
Begin with `worker`, which decides when attempts run, then `executor`, which runs one from its claim to its commit.
"""
