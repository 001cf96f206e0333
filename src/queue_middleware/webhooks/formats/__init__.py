"""How a webhook is written: the signed message and its headers, one module for each format.

May import: `jobs`, `syntax`, `errors`. `receivers` uses these modules as well.
Begin with `fal`.
"""
