"""Checks a network, a loss and a batch for mistakes before the first training step. Needs torch only.

from losslab.doctor import examine, report

print(report(examine(network, loss, (inputs, target))))
"""

from losslab.doctor.examine import examine
from losslab.doctor.finding import Finding, Severity, report

__all__ = ["Finding", "Severity", "examine", "report"]
