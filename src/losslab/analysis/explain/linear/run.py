"""A run of the linear model: the minimum of its loss, the trajectory of its weights, and the effect of outliers."""

import csv
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from losslab.analysis.explain.figures import Array
from losslab.analysis.explain.linear.training_loss import Minimum, TrainingLoss, find_minimum
from losslab.analysis.explain.solution import Solution
from losslab.errors import LabError
from losslab.io.untrusted import read_text
from losslab.runs import RunFolder

_DELETE = "delete it to draw the surface without the path"
_MAX_WEIGHT = 1e30
"""A path with larger weights is treated as damaged."""


@dataclass(frozen=True)
class Trajectory:
    """The weights of a run before its first step and after its epochs, as recorded in path.csv."""

    epochs: Array
    """The number of finished epochs at each point (K,), starting at 0."""
    steps: Array
    """The number of optimizer steps at each point (K,), starting at 0."""
    weights: Array
    """The weights θ at each point (K, P)."""

    @classmethod
    def read(cls, run: RunFolder, names: list[str], end: Array | None = None) -> Self | None:
        """Read path.csv of a run whose weights have these names. Return None if there is no file, or one row only.

        If `end` (P,) is given, the weights in the last row must be equal to it.

        Raises:
            LabError: the file is damaged, or belongs to another network or run.
        """
        path = run.weight_trajectory
        if not path.is_file():
            return None
        try:
            header, *rows = list(csv.reader(read_text(path).splitlines())) or [[]]
            table = np.array(rows, dtype=float).reshape(len(rows), len(header))
        except (OSError, ValueError, csv.Error) as error:
            raise LabError(f"{path} is damaged ({error}): {_DELETE}") from error
        if header != ["epoch", "step", *names] or not len(table) or not (np.abs(table) < _MAX_WEIGHT).all():
            raise LabError(f"{path} is not the path of this network: {_DELETE}")
        trajectory = cls(table[:, 0], table[:, 1], table[:, 2:])
        if not ((np.diff(trajectory.epochs) > 0).all() and (np.diff(trajectory.steps) >= 0).all()):
            raise LabError(f"{path} is damaged (its epochs or steps are not in order): {_DELETE}")
        if end is not None and not np.allclose(trajectory.weights[-1], end, rtol=1e-5, atol=1e-7):
            raise LabError(f"{path} does not end at the weights of {run.last.name}: {_DELETE}")
        return trajectory if len(table) > 1 else None


@dataclass(frozen=True)
class LinearRun:
    """A run of the linear model with everything that its figures show."""

    solution: Solution
    loss: TrainingLoss
    minimum: Minimum
    trajectory: Trajectory | None

    @classmethod
    def of(cls, solution: Solution) -> Self:
        """Find the minimum of a run's loss and read its trajectory."""
        loss = TrainingLoss(solution)
        # The last row can differ from the final weights if the run was interrupted or another callback changed them.
        targets = [str(each.get("_target_")) for each in (solution.config.get("callbacks") or {}).values() if each]
        own = all(target.startswith("losslab.") or target.endswith(".EarlyStopping") for target in targets)
        end = loss.trained_weights if own and solution.folder.metrics.is_file() else None
        return cls(solution, loss, find_minimum(loss, loss.starts), Trajectory.read(solution.folder, loss.names, end))

    @property
    def end(self) -> Array:
        """The last weights θ (P,) of the trajectory, before they are averaged; without one, the trained weights."""
        return self.loss.trained_weights if self.trajectory is None else self.trajectory.weights[-1]

    @cached_property
    def curvature(self) -> tuple[Array, Array]:
        """Eigenvalues (P,) of the Hessian at the minimum, largest first, and eigenvectors (P, P), which are columns."""
        values, vectors = np.linalg.eigh(self.loss.hessian(self.minimum.weights))
        return values[::-1], vectors[:, ::-1]

    @property
    def is_curved(self) -> bool:
        """Whether the loss is curved at the minimum. The Hessian of a piecewise linear loss is 0 wherever it exists."""
        return bool(self.minimum.reached and self.curvature[0][0] > 0 and np.isfinite(self.curvature[0]).all())

    @property
    def centre(self) -> Array:
        """The weights θ (P,) at the centre of the figure: the minimum, or the end if no minimum was found."""
        return self.minimum.weights if self.minimum.reached else self.end

    @property
    def constant_lr(self) -> float | None:
        """The learning rate if the optimizer is SGD without momentum and the rate is constant; otherwise None."""
        optimizer, scheduler = self.solution.config["optimizer"], self.solution.config["choices"].get("scheduler")
        plain = optimizer["_target_"] == "torch.optim.SGD" and not optimizer.get("momentum")
        return float(optimizer["lr"]) if plain and scheduler == "constant" else None

    @property
    def max_stable_lr(self) -> float:
        """The learning rate 2/λ above which full-batch gradient descent diverges; λ is the largest eigenvalue."""
        return float(2 / self.curvature[0][0])

    @cached_property
    def clean_minimum(self) -> Minimum:
        """The minimum of the loss on the true targets, which contain no outliers."""
        loss = TrainingLoss(self.solution, clean=True)
        return find_minimum(loss, [self.minimum.weights, *loss.starts])

    @property
    def outlier_shift(self) -> float:
        """The distance by which the outliers move the minimum."""
        return float(np.linalg.norm(self.minimum.weights - self.clean_minimum.weights))

    @property
    def outlier_share(self) -> float:
        """The share of the training targets that differ from the truth."""
        target, truth = self.loss.target, self.loss.truth
        return float((target != truth).double().mean()) if target.shape == truth.shape else 0.0

    def distance_to_truth(self, weights: Array) -> float | None:
        """Return the distance of weights θ (P,) from the true weights; None if the true weights are not known."""
        truth = self.loss.true_weights
        return None if truth is None else float(np.linalg.norm(weights - truth))
