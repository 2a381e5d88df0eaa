"""A package, so that the rigs have names: `python -m tests.rigs.oom`, `pytest -p tests.rigs.leaks`."""
