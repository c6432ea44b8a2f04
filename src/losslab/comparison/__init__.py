"""Which loss won, and is the difference real? Run folders in; groups, tables and figures out. Imports no torch.

from losslab.comparison import compare

comparison = compare(["outputs/sweep-..."], baseline="loss=cross_entropy")
print(comparison.table_markdown("test/accuracy"))
comparison.figure("test/accuracy").savefig("comparison.png")
"""

from losslab.comparison.comparing import Comparison, compare
from losslab.comparison.differences import Difference, Standing
from losslab.comparison.grouping import Group
from losslab.comparison.reading import Run
from losslab.comparison.statistics import Estimate

__all__ = ["Comparison", "Difference", "Estimate", "Group", "Run", "Standing", "compare"]
