"""Reading and writing of files and terminals, without knowledge of losses or runs.

Writers: `atomic` (whole files and checksums), `json_files`, `tables` (CSV, Markdown, terminal), `figures` (PNG),
`terminal` (log lines). Readers of untrusted files: `untrusted`, and `torch_files`, which imports torch.
"""
