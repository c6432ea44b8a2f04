"""Reads and writes files, and prints to the terminal. Contains nothing about losses or runs.

Writers: `atomic` (whole files, JSON, checksums), `tables` (CSV, Markdown, terminal), `figures` (PNG), `terminal` (log
messages). Readers of untrusted files: `untrusted`, and `torch_files`, which imports torch. Names: `conf_groups`,
`metric_names`.
"""
