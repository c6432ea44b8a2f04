"""Documentation pages made of experiments: commands that are run, their recorded results, and text and figures of them.

`experiments` runs and records, `page` writes a page and finds out whether it is stale; `choosing_guide` is
docs/choosing.md, `lessons` is docs/lessons.md. Run by `python scripts/pages`.
"""
