"""A package, so that the rigs have names, as in `python -m tests.rigs.oom`."""
