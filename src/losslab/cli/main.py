"""`losslab VERB`, `python train.py`, and the old commands `losslab-VERB`.

The module of a verb is imported only when the verb runs, so that `losslab --help` is fast.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill

VERBS = {
    "train": "train a model with a loss; with -m, sweep over several losses, seeds or settings",
    "check": "examine an experiment before it is trained",
    "study": "compare losses fairly: tune each, race them on fresh seeds, say what is certain",
    "show": "print the card of a loss and draw its value and gradient",
    "evaluate": "evaluate a finished run: report, confusion matrix, calibration, residuals",
    "compare": "compare runs: which loss is better, and is the difference real?",
    "explain": "draw figures that explain finished runs: loss surfaces, margins, barriers",
    "predict": "classify image files with a finished run",
    "export": "write the network of a finished run as a torch.export program",
}
"""The verbs, with their descriptions in `losslab --help`. `losslab.cli.VERB.VERB` is the function of a verb."""

_HELP = """\
losslab: a laboratory for loss functions. Which loss should I use, and is the difference real?

Usage: losslab VERB ...

{verbs}

`losslab VERB --help` lists the arguments of a verb. `train`, `check`, `study` and `show` take Hydra overrides
such as loss=focal loss.gamma=3; the others take run folders and options. In a checkout, `python train.py ...` is
`losslab train ...`. Tab completion: eval "$(losslab train -sc install=bash)", also zsh and fish.
"""

_TRAIN_HELP = """\
losslab: train a model under any loss, and see what the loss changes.

Usage: python train.py GROUP=CHOICE KEY=VALUE ...      (or `losslab train`, where losslab is installed)

Groups and their choices:

{groups}

Examples:
  python train.py                                               three points, 1000 epochs, a loss curve
  python train.py loss=huber data=linear_synthetic noise=outliers
  python train.py model=cifar_cnn loss=focal loss.gamma=3       CIFAR-10, downloaded on first use
  python train.py model=cifar_cnn data=digits trainer.max_epochs=5 optimizer=adamw optimizer.lr=1e-3
  python train.py -m loss=mse,l1,huber seed=0,1,2               a sweep of nine runs
  python train.py trainer=ddp                                   all GPUs of this machine
  python train.py resume=FOLDER                                 resume an interrupted run, or complete a sweep

  losslab show loss=focal                                       the card of a loss, with its value and gradient
  losslab check model=mlp data=digits loss=focal                examine an experiment without training it

  --cfg job        print the whole configuration; every value can be set
  -m               sweep over comma-separated values
  --hydra-help     further options of Hydra
  Tab completion   eval "$(python train.py -sc install=bash)", also zsh and fish
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
    """Run the verb `train`: the function that train.py calls."""
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
        _print_train_help()
        return
    if find_spec("hydra") is None:  # not the Python in which losslab was installed
        sys.exit(
            "this Python lacks losslab's dependencies: run `source .venv/bin/activate` (`make train` creates .venv)"
        )
    from losslab.training.distributed.signals import exit_on_ctrl_c  # noqa: PLC0415

    # Threads of torch that wait for work spin, by default 300,000 times, which makes training several times slower when
    # another process uses the same cores. OpenMP (that of GCC) reads this variable when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    with exit_on_ctrl_c():  # during the imports, which take a second, Ctrl-C would otherwise print a traceback
        function = getattr(import_module(f"losslab.cli.{verb}"), verb)
    function()


def _print_train_help() -> None:
    """Print the help of `losslab train`. Hydra's own `--help` is slow, since it composes the configuration."""
    from losslab.io.conf_groups import NAMES, choices  # noqa: PLC0415
    from losslab.io.terminal import ignore_output_errors  # noqa: PLC0415

    ignore_output_errors()  # for `--help | head -1`, which closes the pipe
    lines = [
        fill(", ".join(choices(group)), 118, initial_indent=f"  {group:<11}", subsequent_indent=" " * 13)
        for group in NAMES
    ]
    sys.stdout.write(_TRAIN_HELP.format(groups="\n".join(lines)))


def _complete(program: str, arguments: list[str]) -> None:
    """Print completions for the shell: the verbs, or or after `train`, `check` and `study` Hydra's completions.

    The shell calls `losslab -sc query=bash` with the typed line in COMP_LINE.
    """
    _, *words = os.environ.get("COMP_LINE", "").split(" ") if "query=" in " ".join(arguments) else ["", "train", ""]
    if len(words) < 2:
        sys.stdout.write(" ".join(VERBS) + "\n")
    elif words[0] in {"train", "check", "study"}:
        os.environ["COMP_LINE"] = " ".join([program, *words[1:]])
        sys.argv = [program, *arguments[arguments.index("-sc") :]]
        _run("train")
