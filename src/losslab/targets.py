"""The kinds of target, and `encode`, the only function that converts targets to another kind.

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
    """The kind of a target. A data module declares the kind that it provides, and a loss the kinds that it accepts."""

    INDEX = "index"
    """Class indices y, int64 (N,)."""
    PROBABILITIES = "probabilities"
    """Class probabilities t, float (N, C), whose rows sum to 1. One-hot rows are a special case."""
    BINARY = "binary"
    """Independent 0/1 labels, float (N, K): one column for binary, several columns for multilabel classification."""
    VALUES = "values"
    """Real values, float (N, D)."""


class Task(StrEnum):
    """The machine learning task of a data set. It determines the learner, the metrics and the monitored metric."""

    REGRESSION = "regression"
    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"


_FROM_INDEX = (Kind.PROBABILITIES, Kind.BINARY)
"""Kinds to which class indices can be converted. Other conversions would lose or invent information."""


def choose_kind(kind: Kind, wants: tuple[Kind, ...]) -> Kind | None:
    """Choose the kind of target to pass to a loss that accepts the kinds in `wants`, for data of the kind `kind`.

    This is `kind` itself if accepted, else the first accepted kind to which `encode` can convert it, else None.
    """
    if kind in wants:
        return kind
    if kind is Kind.INDEX:
        return next((wanted for wanted in wants if wanted in _FROM_INDEX), None)
    return None


def encode(target: Tensor, kind: Kind, wanted: Kind, columns: int, dtype: torch.dtype) -> Tensor:
    """Convert a target to another kind.

    Args:
        target: target in the shape that `Kind` describes.
        kind: kind of `target`.
        wanted: kind to convert to, from `choose_kind`.
        columns: number of classes C.
        dtype: dtype of the converted target.

    Returns:
        The target itself if `kind` is `wanted`, otherwise columns of 0 and 1 (N, C). An index outside 0..C-1 gives a
        row of NaN, because a row of zeros would mean "none of the classes".

    Raises:
        LabError: the conversion would lose or invent information, such as probabilities to indices.
    """
    if kind is wanted:
        return target
    if kind is not Kind.INDEX or wanted not in _FROM_INDEX:
        raise LabError(f"{kind} targets cannot become {wanted} targets without losing or inventing information")
    # A comparison instead of F.one_hot, which torch.func.vmap cannot trace and which rejects indices outside 0..C-1.
    columns_of_0_and_1 = (target.unsqueeze(-1) == torch.arange(columns, device=target.device)).to(dtype)
    valid = ((target >= 0) & (target < columns)).unsqueeze(-1)
    return columns_of_0_and_1.where(valid, torch.nan)
