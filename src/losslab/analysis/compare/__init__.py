"""Comparison of configurations, each trained with several seeds: paired differences, tables and figures. No torch.

from losslab.analysis.compare import compare

comparison = compare(["outputs/sweep-..."], baseline="loss=cross_entropy")
print(comparison.table_markdown("test/accuracy"))
comparison.figure("test/accuracy").savefig("comparison.png")
"""

from losslab.analysis.compare.comparison import Comparison, compare
from losslab.analysis.compare.differences import Difference, MetricComparison
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import Run
from losslab.analysis.compare.statistics import Estimate

__all__ = ["Comparison", "Difference", "Estimate", "Group", "MetricComparison", "Run", "compare"]
