"""The kinds of target, and `encode`: the only place where a target changes kind.

The letters used in every docstring of this package:

    N   examples in a batch                     z   outputs of the network, (N, C) or (N, D)
    C   classes                                 p   probabilities the outputs stand for
    D   values to regress                       y   class index, (N,)
    K   independent yes/no labels               t   target as probabilities or values, (N, C) or (N, D)
"""

from enum import StrEnum

import torch
from torch import Tensor

from losslab.errors import LabError


class Kind(StrEnum):
    """What a target holds. Data declare the one kind they give, a loss the kinds it takes."""

    INDEX = "index"
    """Class indices y, int64 (N,)."""
    PROBABILITIES = "probabilities"
    """Class probabilities t, float (N, C), rows sum to 1. One-hot targets are probabilities without doubt."""
    BINARY = "binary"
    """Independent 0/1 labels, float (N, K): one column for a binary problem, several for multi-label ones."""
    VALUES = "values"
    """Real values, float (N, D)."""


class Task(StrEnum):
    """What a data set asks for. It decides the learner, the metrics and the metric that is monitored."""

    REGRESSION = "regression"
    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"


# Indices spell out as columns without losing or inventing anything. No other change of kind has this property.
_FROM_INDEX = (Kind.PROBABILITIES, Kind.BINARY)


def choose(given: Kind, wants: tuple[Kind, ...]) -> Kind | None:
    """The kind in which a loss that `wants` these kinds will learn from `given` targets, or None if it cannot."""
    if given in wants:
        return given
    if given is Kind.INDEX:
        return next((kind for kind in wants if kind in _FROM_INDEX), None)
    return None


def encode(target: Tensor, given: Kind, wanted: Kind, columns: int, dtype: torch.dtype) -> Tensor:
    """Translate targets of the kind `given` into the kind `wanted`.

    Args:
        target: in the shape that `given` says.
        given: the kind that the data give.
        wanted: the kind that the loss takes, as `choose` chose it.
        columns: C, for indices that become columns.
        dtype: of the encoded columns; a target that keeps its kind keeps its dtype.

    Returns:
        The target; indices become (N, C) columns of 0 and 1. An index outside 0..C-1 becomes a row of NaN, so that
        no loss can mistake it for "no class at all".

    Raises:
        LabError: the change would lose or invent information (probabilities to indices, values to classes, ...).
    """
    if given is wanted:
        return target
    if given is not Kind.INDEX or wanted not in _FROM_INDEX:
        raise LabError(f"{given} targets cannot become {wanted} targets without losing or inventing information")
    # Compared rather than one_hot: torch.func.vmap cannot trace F.one_hot, and a comparison needs no valid range.
    hot = (target.unsqueeze(-1) == torch.arange(columns, device=target.device)).to(dtype)
    known = ((target >= 0) & (target < columns)).unsqueeze(-1)
    return hot.where(known, torch.nan)
