"""What train.py and the console commands run. Heavy imports wait until an experiment is certain."""

import sys
from importlib.util import find_spec

if find_spec("hydra") is None:  # run by a python that is not the one losslab was installed for
    sys.exit(
        "this python lacks losslab's packages: run `source .venv/bin/activate` first, or make .venv by `make train`"
    )

from losslab.signals import ending_at_once

with ending_at_once():  # they take a second
    from losslab.cli.checking import check
    from losslab.cli.comparing import compare
    from losslab.cli.composing import compose, resolve
    from losslab.cli.evaluating import evaluate
    from losslab.cli.explaining import explain
    from losslab.cli.exporting import export
    from losslab.cli.predicting import predict
    from losslab.cli.process import imports_without_gc, keep_freed_memory
    from losslab.cli.showing import show
    from losslab.cli.training import train

__all__ = [
    "check",
    "compare",
    "compose",
    "evaluate",
    "explain",
    "export",
    "imports_without_gc",
    "keep_freed_memory",
    "predict",
    "resolve",
    "show",
    "train",
]
