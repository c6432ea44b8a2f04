"""The contract of a loss: what all promise, and what each claims on its card. Both are put to the test."""

from collections.abc import Callable
from typing import Any

from losslab.losses.contract.behaviour import CHECKS
from losslab.losses.contract.claims import CLAIMS

__all__ = ["CHECKS", "CLAIMS", "run_check"]


def run_check(check: Callable[..., str | None], *args: Any) -> str | None:
    """What a check or a claim finds wrong, which may be that the loss raises; None if it holds."""
    try:
        return check(*args)
    except Exception as error:  # noqa: BLE001 -- whatever a loss raises breaks the promise
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
