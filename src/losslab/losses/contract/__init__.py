"""Checks a loss: what every loss guarantees (`behaviour`), and the facts that its `Card` declares (`claims`).

`claims.check_loss` runs all checks. `search` finds facts numerically, on outputs and targets from `sample_inputs`.
"""
