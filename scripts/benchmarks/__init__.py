"""Sections of docs/benchmarks.md: the project's programs are timed in turn with those in `peers`."""
