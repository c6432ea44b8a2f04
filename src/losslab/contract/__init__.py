"""The contract of a loss: what all promise, and what each claims on its card. Both are put to the test."""

from losslab.contract.behaviour import CHECKS
from losslab.contract.claims import CLAIMS

__all__ = ["CHECKS", "CLAIMS"]
