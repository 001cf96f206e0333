"""What the queue costs, measured against a bare application, other queues and its own goals: `python -m benchmarks`.

Begin with `scenarios/__init__.py`, the table of everything that is measured, then `runner.py`.
"""
