"""The part of a store that knows no driver: operations on batches, reads, codecs, the group-commit writer and the ports.

May import: what `stores` may import, but no database driver and nothing of `stores.sqlite`.
Begin with `job_store`, then `writer` (group commit) and `operations`.
"""
