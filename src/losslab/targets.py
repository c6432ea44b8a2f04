"""The kinds of target, and `encode`, the only function that converts a target from one kind to another.

Letters used in all docstrings of this package:

    N   examples in a batch                     z   outputs of the network, (N, C) or (N, D)
    C   classes                                 p   probabilities that the outputs stand for
    D   values to regress                       y   class index, (N,)
    K   independent 0/1 labels                  t   target as probabilities or values, (N, C) or (N, D)
"""

from enum import StrEnum

import torch
from torch import Tensor

from losslab.errors import LabError


class Kind(StrEnum):
    """What a target contains. A data module declares the kind it provides, a loss the kinds it accepts."""

    INDEX = "index"
    """Class indices y, int64 (N,)."""
    PROBABILITIES = "probabilities"
    """Class probabilities t, float (N, C), rows sum to 1. One-hot rows are a special case."""
    BINARY = "binary"
    """Independent 0/1 labels, float (N, K): one column for a binary problem, several for a multilabel one."""
    VALUES = "values"
    """Real values, float (N, D)."""


class Task(StrEnum):
    """The problem that a data set poses. It decides the learner, the metrics and the monitored metric."""

    REGRESSION = "regression"
    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"


_FROM_INDEX = (Kind.PROBABILITIES, Kind.BINARY)
"""What indices can be written as. Any other conversion would lose or invent information."""


def choose_kind(kind: Kind, wants: tuple[Kind, ...]) -> Kind | None:
    """The kind to convert targets of this kind to for a loss that `wants` these kinds; None if there is none."""
    if kind in wants:
        return kind
    if kind is Kind.INDEX:
        return next((wanted for wanted in wants if wanted in _FROM_INDEX), None)
    return None


def encode(target: Tensor, kind: Kind, wanted: Kind, columns: int, dtype: torch.dtype) -> Tensor:
    """Convert a target to another kind.

    Args:
        target: in the shape that its kind prescribes.
        kind: the kind of the target.
        wanted: the kind that the loss accepts, from `choose_kind`.
        columns: C, for indices that become columns.
        dtype: of the new columns; a target that keeps its kind keeps its dtype.

    Returns:
        The target itself, or (N, C) columns of 0 and 1 for indices. An index outside 0..C-1 becomes a row of NaN, so
        that no loss mistakes it for "no class".

    Raises:
        LabError: the conversion would lose or invent information, such as probabilities to indices.
    """
    if kind is wanted:
        return target
    if kind is not Kind.INDEX or wanted not in _FROM_INDEX:
        raise LabError(f"{kind} targets cannot become {wanted} targets without losing or inventing information")
    # A comparison, because torch.func.vmap cannot trace F.one_hot and because it accepts any index.
    columns_of_0_and_1 = (target.unsqueeze(-1) == torch.arange(columns, device=target.device)).to(dtype)
    valid = ((target >= 0) & (target < columns)).unsqueeze(-1)
    return columns_of_0_and_1.where(valid, torch.nan)
