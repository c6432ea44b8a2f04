"""Documentation pages that are generated from experiments.

`experiments` runs commands and records their results. `page` writes a page from the recorded results. `freshness`
computes hashes of what an experiment depends on, and `verification` repeats experiments. `study` is an experiment that
is a `losslab study`. `choosing_guide` defines docs/choosing.md, `lessons` docs/lessons.md, and `atlas` docs/atlas.md.
The command is `python scripts/pages`.
"""
