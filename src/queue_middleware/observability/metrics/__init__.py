"""Metrics: counters and histograms that live in the database, so that every process of a queue shows the same numbers.

May import: `events` and what lies below it; `exposition` also `prometheus_client` (extra `metrics`), and nothing else does.
Begin with `catalog`, the table of all metrics, then `meter`, which adds up in memory, and `store`, the port that adds its sums
to those in the database.
"""
