"""The part of a store that knows no driver: operations on batches, reads, codecs, the group-commit writer and the ports."""
