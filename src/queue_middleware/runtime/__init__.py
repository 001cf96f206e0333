"""Starting, supervising and stopping the queue of one process.

May import: everything below it.
Begin with `runtime` (what the HTTP interface and the operator methods call), then `lifecycle` (start and stop) and
`supervisor` (what is built, and in which order it starts and stops).
"""
