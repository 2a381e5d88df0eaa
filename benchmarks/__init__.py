"""Benchmarks: sleeploop beside its peers, each measurement in a process of its own.

`python -m benchmarks` runs them all; `python -m benchmarks.bench_switch` runs one.
"""
