"""The sections of docs/benchmarks.md: what is timed beside what, and how."""
