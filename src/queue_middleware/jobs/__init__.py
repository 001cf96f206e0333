"""What a job is: its values, its states, its retry rule, and the port that stores implement. Pure: no I/O.

May import: `syntax`, `errors`, `backoff`.
Begin with `models` (the values), then `states` (which event leads from which state to which), then `store` (what a store owes).
"""
