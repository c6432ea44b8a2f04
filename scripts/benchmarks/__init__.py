"""Sections of docs/benchmarks.md: losslab and the programs in `peers` are timed alternately."""
