"""A run of the linear model: its problem, the minimum of its loss, and the trajectory of its weights."""

import csv
from dataclasses import dataclass
from functools import cached_property
from io import TextIOWrapper
from typing import Self

import numpy as np

from losslab.analysis.explain.linear.problem import Minimum, Problem, Vector, find_minimum
from losslab.analysis.explain.solution import Solution
from losslab.errors import LabError
from losslab.io.untrusted import open_regular_file
from losslab.runs import RunFolder

_DELETE = "delete it to see the surface alone"
_MAX_WEIGHT = 1e30
"""Larger weights cannot come from a run that can be drawn."""


@dataclass(frozen=True)
class Trajectory:
    """All weights of a run before its first step and after each of its epochs, as path.csv holds them."""

    epochs: Vector
    """(K,), from 0."""
    steps: Vector
    """(K,), from 0."""
    weights: Vector
    """(K, P)."""

    @classmethod
    def read(cls, run: RunFolder, names: list[str], end: Vector | None = None) -> Self | None:
        """Read path.csv of a run; None if the file does not exist or has no step.

        Args:
            run: the run folder.
            names: of the weights (P,).
            end: the weights at which the trajectory must end (P,); None if they are not known.

        Raises:
            LabError: the file is damaged, or of another network or run.
        """
        path = run.weight_trajectory
        if not path.is_file():
            return None
        try:
            with TextIOWrapper(open_regular_file(path), encoding="utf-8", newline="") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            table = np.array(rows, dtype=float).reshape(len(rows), len(header))
        except (OSError, ValueError, csv.Error) as error:
            raise LabError(f"{path} is damaged ({error}): {_DELETE}") from error
        if header != ["epoch", "step", *names] or not len(table) or not (np.abs(table) < _MAX_WEIGHT).all():
            raise LabError(f"{path} is not the path of this network: {_DELETE}")
        trajectory = cls(table[:, 0], table[:, 1], table[:, 2:])
        ascending = (np.diff(trajectory.epochs) > 0).all() and (np.diff(trajectory.steps) >= 0).all()
        if not ascending or (end is not None and not np.allclose(trajectory.weights[-1], end, rtol=1e-5, atol=1e-7)):
            raise LabError(f"{path} does not end at the weights of {run.last.name}: {_DELETE}")
        return trajectory if len(table) > 1 else None


@dataclass(frozen=True)
class LinearRun:
    """A run with everything that is drawn of it."""

    solution: Solution
    problem: Problem
    minimum: Minimum
    trajectory: Trajectory | None

    @classmethod
    def of(cls, solution: Solution) -> Self:
        """Find the minimum of a run's loss and read its trajectory."""
        problem = Problem(solution)
        # The path ends elsewhere if the run was interrupted, or if a foreign callback may have averaged the weights.
        targets = [str(each.get("_target_")) for each in (solution.config.get("callbacks") or {}).values() if each]
        own = all(target.startswith("losslab.") or target.endswith(".EarlyStopping") for target in targets)
        end = problem.learnt if own and solution.folder.metrics.is_file() else None
        trajectory = Trajectory.read(solution.folder, problem.names, end)
        return cls(solution, problem, find_minimum(problem, problem.starts), trajectory)

    @property
    def label(self) -> str:
        """Distinguishes the run from the others."""
        return self.solution.label

    @property
    def end(self) -> Vector:
        """The weights at the end of training, before any averaging, θ (P,)."""
        return self.problem.learnt if self.trajectory is None else self.trajectory.weights[-1]

    @cached_property
    def curvature(self) -> tuple[Vector, Vector]:
        """Eigenvalues (P,), largest first, and eigenvectors (P, P), in columns, of the Hessian at the minimum."""
        values, vectors = np.linalg.eigh(self.problem.hessian(self.minimum.weights))
        return values[::-1], vectors[:, ::-1]

    @property
    def is_curved(self) -> bool:
        """Whether the Hessian at the minimum is useful: that of a piecewise linear loss is 0 wherever it exists."""
        return bool(self.minimum.reached and self.curvature[0][0] > 0 and np.isfinite(self.curvature[0]).all())

    @property
    def centre(self) -> Vector:
        """The centre of the figure, θ (P,): the minimum, or the end of training if there is none."""
        return self.minimum.weights if self.minimum.reached else self.end

    @property
    def constant_lr(self) -> float | None:
        """The learning rate of plain SGD at a constant rate; None for any other optimizer or scheduler."""
        optimizer, scheduler = self.solution.config["optimizer"], self.solution.config["choices"].get("scheduler")
        plain = optimizer["_target_"] == "torch.optim.SGD" and not optimizer.get("momentum")
        return float(optimizer["lr"]) if plain and scheduler == "constant" else None

    @property
    def max_stable_lr(self) -> float:
        """2/λ: beyond it full-batch gradient descent diverges from the minimum."""
        return float(2 / self.curvature[0][0])

    def distance_to_truth(self, weights: Vector) -> float | None:
        """Distance from weights θ (P,) to the true weights; None if these are not known."""
        truth = self.problem.true_weights
        return None if truth is None else float(np.linalg.norm(weights - truth))
