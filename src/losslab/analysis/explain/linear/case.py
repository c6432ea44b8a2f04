"""One linear run: its problem, where that is lowest, and how the run got as far as it did."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from losslab.analysis.explain.linear.problem import Minimum, Problem, Vector, lowest
from losslab.analysis.explain.solution import Path, Solution


@dataclass(frozen=True)
class Case:
    """What is to be seen of one run."""

    solution: Solution
    problem: Problem
    minimum: Minimum
    path: Path | None

    @classmethod
    def of(cls, solution: Solution) -> "Case":
        """Solve the problem of a run and read its path."""
        problem = Problem(solution)
        path = Path.read(solution.folder, problem.names, problem.learnt if _ends_there(solution) else None)
        minimum = lowest(problem, problem.starts)
        return cls(solution, problem, minimum, path)

    @property
    def label(self) -> str:
        """What tells this run from the others."""
        return self.solution.label

    @property
    def end(self) -> Vector:
        """Where training ended, θ (P,): of a moving average, what was averaged."""
        return self.problem.learnt if self.path is None else self.path.weights[-1]

    @cached_property
    def curvature(self) -> tuple[Vector, Vector]:
        """Eigenvalues (P,), largest first, and eigenvectors (P, P) in columns of the Hessian at the minimum."""
        values, vectors = np.linalg.eigh(self.problem.hessian(self.minimum.weights))
        return values[::-1], vectors[:, ::-1]

    @property
    def curved(self) -> bool:
        """Whether the Hessian says anything: of a loss of straight pieces it is 0 wherever it exists."""
        if not self.minimum.reached:
            return False
        values = self.curvature[0]
        return bool(values[0] > 0 and np.isfinite(values).all())

    @property
    def centre(self) -> Vector:
        """What is looked at, θ (P,): the minimum, or where there is none the end of training."""
        return self.minimum.weights if self.minimum.reached else self.end

    @property
    def plain_rate(self) -> float | None:
        """The learning rate of plain gradient descent at a constant rate; None for any other way to learn."""
        config = self.solution.config
        optimizer = config["optimizer"]
        plain = optimizer["_target_"] == "torch.optim.SGD" and not optimizer.get("momentum")
        return float(optimizer["lr"]) if plain and config["choices"].get("scheduler") == "constant" else None

    @property
    def largest_rate(self) -> float:
        """2/λ: beyond it plain gradient descent on all examples leaves the minimum again."""
        return float(2 / self.curvature[0][0])

    @property
    def missing(self) -> float:
        """How far from the minimum training ended."""
        return float(np.linalg.norm(self.end - self.minimum.weights))

    @property
    def astray(self) -> float | None:
        """How far the minimum lies from the true law."""
        law = self.problem.law
        return None if law is None else float(np.linalg.norm(self.minimum.weights - law))

    @property
    def off(self) -> float | None:
        """How far from the true law training ended."""
        law = self.problem.law
        return None if law is None else float(np.linalg.norm(self.end - law))


def _ends_there(solution: Solution) -> bool:
    """Whether the path of a run must end at the weights of its newest checkpoint.

    It need not where the run was interrupted, or where a callback of another's may have averaged them.
    """
    targets = [str(each.get("_target_")) for each in (solution.config.get("callbacks") or {}).values() if each]
    ours = all(target.startswith("losslab.") or target.endswith(".EarlyStopping") for target in targets)
    return ours and solution.folder.metrics.is_file()
