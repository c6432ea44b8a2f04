"""Which loss won, and is the difference real? Run folders in; groups, tables and figures out. Imports no torch.

from losslab.comparison import compare

comparison = compare(["outputs/sweep-..."], baseline="loss=cross_entropy")
print(comparison.table_markdown("test/accuracy"))
comparison.figure("test/accuracy").savefig("comparison.png")
"""

from losslab.analysis.compare.comparison import Comparison, compare
from losslab.analysis.compare.differences import Difference, MetricComparison
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import Run
from losslab.analysis.compare.statistics import Estimate

__all__ = ["Comparison", "Difference", "Estimate", "Group", "Run", "MetricComparison", "compare"]
