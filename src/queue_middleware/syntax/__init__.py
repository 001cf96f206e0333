"""Pure readers and writers of hosts, URLs, JSON and durations, each in one canonical form.

May import: the standard library, `idna`, `errors`.
Begin with `hosts`: every part of the package that compares two hosts uses its form.
"""
