"""The contract of a loss: what every loss guarantees (`behaviour`) and what its card claims (`claims`), as checks.

`report.check_loss` runs all of them on a loss. `search` finds facts numerically, on the tensors of `sample_inputs`.
"""

from collections.abc import Callable
from typing import Any

from losslab.losses.contract.behaviour import CHECKS
from losslab.losses.contract.claims import CLAIMS

__all__ = ["CHECKS", "CLAIMS", "run_check"]


def run_check(check: Callable[..., str | None], *args: Any) -> str | None:
    """Run a check or claim → a description of the failure, which may be an exception of the loss; None if it holds."""
    try:
        return check(*args)
    except Exception as error:  # noqa: BLE001 -- any exception of the loss is a failure
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
