"""The contract of a loss: checks of what every loss guarantees (`behaviour`) and of what its card claims (`claims`).

`report.check_loss` runs all of them on a loss. `search` finds facts numerically, on the tensors of `sample_inputs`.
"""
