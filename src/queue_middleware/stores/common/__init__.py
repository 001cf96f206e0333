"""The part of a store that needs no database driver: operations on batches, reads, codecs, the writer, and the ports' methods.

May import: what `stores` may import, but no database driver and nothing of `stores.sqlite`.
Begin with `job_store`, then `writer` (group commit) and `jobs` (operations).
"""
