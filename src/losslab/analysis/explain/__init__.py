"""Figures that say what a finished run learnt and how, one module a question. Imports no torch.

Such a module has two functions, and imports no torch before the second is called:

    applies(config)         whether it has something to say of a run, by its config.json
    explain(runs, output)   draws into `output`, or into the figures/ of the one run, logs a line for each figure, and
                            returns their paths; where networks are looked at, a Sight may follow
"""

from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Explanation(NamedTuple):
    """An explanation that `losslab explain` knows."""

    path: str
    """Of its module."""
    needs: str
    """What a run must be, in words."""
    sighted: bool = False
    """Whether its `explain` takes a Sight."""

    @property
    def module(self) -> ModuleType:
        """Where `applies` and `explain` are."""
        return import_module(self.path)


EXPLANATIONS = {
    "linear": Explanation("losslab.analysis.explain.linear", "a run of the linear model (model=linear)"),
    "landscape": Explanation(
        "losslab.analysis.explain.landscape", "a run of a network (a linear model has `linear`)", sighted=True
    ),
    "barrier": Explanation(
        "losslab.analysis.explain.barrier", "a run of a network (a linear model has none)", sighted=True
    ),
    "dynamics": Explanation("losslab.analysis.explain.dynamics", "a run with callbacks=dynamics"),
}
"""By the name that `--what` takes. A new one is a line here."""
