"""The plane in which the surface of a linear model is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from losslab.explanation.linear.problem import Vector


@dataclass(frozen=True)
class Plane:
    """All θ = origin + x · axes[0] + y · axes[1]."""

    origin: Vector
    """(P,)."""
    axes: Vector
    """Two orthonormal directions (2, P)."""
    labels: tuple[str, str]
    """What x and y are."""

    def at(self, weights: Vector) -> Vector:
        """Where weights (..., P) lie, seen from above the plane → (..., 2)."""
        seen: Vector = (weights - self.origin) @ self.axes.T
        return seen

    def weights(self, places: Vector) -> Vector:
        """θ (..., P) of places (..., 2) in the plane."""
        found: Vector = self.origin + places @ self.axes
        return found


def through(origin: Vector, ways: Sequence[Vector], hessian: Vector) -> Plane:
    """The plane through an origin in which most is to be seen.

    Of two weights it is that of the weights themselves. Of more it is the plane that lies nearest to the paths (their
    principal directions, as in Li et al. 2018), or without paths that of the steepest and the flattest direction.

    Args:
        origin: (P,).
        ways: the paths (K, P), perhaps none.
        hessian: of the loss (P, P).
    """
    if len(origin) == 2:
        return Plane(np.zeros(2), np.eye(2), ("weight w", "bias b"))
    if not ways:
        _, vectors = np.linalg.eigh(hessian)
        return Plane(
            origin, vectors[:, [-1, 0]].T, ("along the steepest eigenvector", "along the flattest eigenvector")
        )
    # By length and not by epoch: most epochs are spent near the end.
    parts = [np.diff(way, axis=0) for way in ways]
    lengths = np.concatenate([np.linalg.norm(part, axis=1) for part in parts])
    seen = (np.concatenate([way[1:] for way in ways]) - origin) * np.sqrt(lengths)[:, None]
    squares, vectors = np.linalg.eigh(seen.T @ seen)  # ascending
    shares = [f"{square / max(squares.sum(), np.finfo(float).tiny):.0%}" for square in squares[:-3:-1]]
    labels = [
        f"{n} principal direction of the paths ({share})" for n, share in zip(("1st", "2nd"), shares, strict=True)
    ]
    return Plane(origin, vectors[:, :-3:-1].T, (labels[0], labels[1]))
