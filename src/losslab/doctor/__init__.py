"""Examines a network, a loss and a batch before the first step, and reports problems. Imports only torch.

from losslab.doctor import examine, report

print(report(examine(network, loss, (inputs, target))))
"""

from losslab.doctor.examine import examine
from losslab.doctor.finding import Finding, Severity, report

__all__ = ["Finding", "Severity", "examine", "report"]
