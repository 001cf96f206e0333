"""The keys that sign webhooks: made, kept in a file, rotated, used.

May import: `events`, `settings`, `background`, `secret_file`, `option_parsers`, `errors`.
Begin with `keyring` (which key signs when), then `signer`.
"""
