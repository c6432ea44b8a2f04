"""`losslab VERB`, `python train.py`, and the old commands `losslab-VERB`.

Imports the module of a verb only once the verb is known, so that --help is quick.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

VERBS = {
    "train": "train a model under a loss, or sweep over several with -m",
    "check": "examine an experiment before it is trained",
    "show": "print the card of a loss and draw its value and gradient",
    "evaluate": "evaluate a finished run: report, confusion matrix, calibration, residuals",
    "compare": "compare runs: which loss is better, and is the difference real?",
    "explain": "draw why runs ended as they did: surfaces, margins, landscapes",
    "predict": "classify image files with a finished run",
    "export": "write the network of a finished run as a torch.export program",
}
"""The verbs with their lines in `losslab --help`. A verb is the function of that name in `losslab.cli.VERB`."""
_HYDRA_VERBS = ("train", "check")
"""The verbs that take overrides of the configuration of a run."""

_HELP = """\
losslab: a laboratory for loss functions. Which loss should I use, and is the difference real?

Usage: losslab VERB ...

{verbs}

`losslab VERB --help` lists the arguments of a verb. `train`, `check` and `show` take Hydra overrides such as
loss=focal loss.gamma=3; the others take run folders and options. In a checkout, `python train.py ...` is
`losslab train ...`. Tab completion: eval "$(losslab train -sc install=bash)", also zsh and fish.
"""


def main() -> None:
    """Run the verb on the command line."""
    program = "losslab" if Path(sys.argv[0]).name == "__main__.py" else Path(sys.argv[0]).name
    arguments = sys.argv[1:]
    if "-sc" in arguments[:2]:
        _complete(program, arguments)
    elif not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_HELP.format(verbs="\n".join(f"  {verb:<10}{line}" for verb, line in VERBS.items())))
    elif arguments[0] == "--version":
        from losslab import __version__  # noqa: PLC0415

        sys.stdout.write(f"losslab {__version__}\n")
    elif arguments[0] not in VERBS:
        sys.exit(f"losslab: there is no verb {arguments[0]!r}: choose one of {', '.join(VERBS)}")
    else:
        sys.argv = [f"{program} {arguments[0]}", *arguments[1:]]  # so that usage lines name the verb
        _run(arguments[0])


def train() -> None:
    """Run `python train.py`."""
    _run("train")


def old_command() -> None:
    """Run `losslab-VERB` as `losslab VERB`. The old commands are kept for one release."""
    name = Path(sys.argv[0]).stem
    verb = name.removeprefix("losslab-")
    sys.stderr.write(f"{name} is now `losslab {verb}`\n")
    sys.argv[0] = f"losslab {verb}"
    _run(verb)


def _run(verb: str) -> None:
    if verb == "train" and {"-h", "--help"} & set(sys.argv[1:]):
        from losslab.cli.help import help_text  # noqa: PLC0415
        from losslab.io.terminal import ignore_output_errors  # noqa: PLC0415

        ignore_output_errors()  # `--help | head -1`
        sys.stdout.write(help_text())
        return
    if find_spec("hydra") is None:  # not the Python in which losslab was installed
        sys.exit(
            "this Python lacks the packages of losslab: run `source .venv/bin/activate`, or create it by `make train`"
        )
    from losslab.training.distributed.signals import exit_on_ctrl_c  # noqa: PLC0415

    with exit_on_ctrl_c():  # imports take a second, in which Ctrl-C would show a traceback
        function = getattr(import_module(f"losslab.cli.{verb}"), verb)
    function()


def _complete(program: str, arguments: list[str]) -> None:
    """Print completions for the shell: of the verb, or of overrides, which Hydra completes.

    The shell calls `losslab -sc query=bash` with the typed line in COMP_LINE.
    """
    _, *words = os.environ.get("COMP_LINE", "").split(" ") if "query=" in " ".join(arguments) else ["", "train", ""]
    if len(words) < 2:
        sys.stdout.write(" ".join(VERBS) + "\n")
    elif words[0] in _HYDRA_VERBS:
        os.environ["COMP_LINE"] = " ".join([program, *words[1:]])
        sys.argv = [program, *arguments[arguments.index("-sc") :]]
        _run("train")
