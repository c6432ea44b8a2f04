"""Documentation pages that are generated from experiments.

`experiments` runs commands and records their results. `page` writes a page from the recorded results and detects
whether it is stale. `choosing_guide` defines docs/choosing.md, and `lessons` defines docs/lessons.md. The command is
`python scripts/pages`.
"""
