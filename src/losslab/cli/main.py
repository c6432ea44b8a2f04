"""`losslab VERB`, `python train.py`, and the old commands `losslab-VERB`, which stay for one release.

Imports nothing heavy: the module of a verb is imported once the verb is known.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

VERBS = {
    "train": "train a model under a loss, or sweep over several with -m",
    "check": "examine a set-up before it is trained",
    "show": "print the card of a loss and draw its value and gradient",
    "evaluate": "measure a finished run: report, confusion matrix, calibration, residuals",
    "compare": "compare runs: which loss is better, and is the difference real?",
    "explain": "draw why runs went as they did: surfaces, margins, landscapes",
    "predict": "classify image files with a finished run",
    "export": "write the network of a finished run as a torch.export program",
}
"""The verbs, each with its line of `losslab --help`. A verb is a function of that name in `losslab.cli.VERB`."""

_USAGE = """\
losslab: a laboratory for loss functions. Which loss should I use, and is the difference real?

Usage: losslab VERB ...

{verbs}

`losslab VERB --help` says what a verb takes. `train`, `check` and `show` speak Hydra (loss=focal loss.gamma=3);
the others take run folders and options. In a checkout, `python train.py ...` is `losslab train ...`.
"""


def main() -> None:
    """Run the verb that the command line names."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_USAGE.format(verbs="\n".join(f"  {verb:<10}{line}" for verb, line in VERBS.items())))
        return
    if arguments[0] == "--version":
        from losslab import __version__  # noqa: PLC0415

        sys.stdout.write(f"losslab {__version__}\n")
        return
    verb = arguments[0]
    if verb not in VERBS:
        sys.exit(f"losslab: no verb {verb!r}: choose from {', '.join(VERBS)}")
    sys.argv[0] = f"{Path(sys.argv[0]).name} {verb}"
    del sys.argv[1]
    run(verb)


def run(verb: str) -> None:
    """Run a verb with the arguments of the process."""
    if find_spec("hydra") is None:  # run by a python that is not the one losslab was installed for
        sys.exit(
            "this python lacks losslab's packages: run `source .venv/bin/activate` first, or make .venv by `make train`"
        )
    from losslab.training.distributed.signals import exit_on_ctrl_c  # noqa: PLC0415

    with exit_on_ctrl_c():  # imports take a second, in which Ctrl-C would be a traceback
        function = getattr(import_module(f"losslab.cli.{verb}"), verb)
    function()


def train() -> None:
    """`python train.py`, and the old command `losslab-train`."""
    run("train")


def evaluate() -> None:
    """The old command `losslab-evaluate`."""
    run("evaluate")


def compare() -> None:
    """The old command `losslab-compare`."""
    run("compare")


def explain() -> None:
    """The old command `losslab-explain`."""
    run("explain")


def predict() -> None:
    """The old command `losslab-predict`."""
    run("predict")


def export() -> None:
    """The old command `losslab-export`."""
    run("export")


def show() -> None:
    """The old command `losslab-show`."""
    run("show")


def check() -> None:
    """The old command `losslab-check`."""
    run("check")
