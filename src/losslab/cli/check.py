"""`losslab check`: the doctor, and the contract of a loss. Trains nothing and writes no run folder."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losslab.cli.options import start_command
from losslab.cli.process import add_working_directory_to_path, imports_without_gc, leave, one_line_errors
from losslab.runs import trust
from losslab.training.config import compose

if TYPE_CHECKING:
    from losslab.losses.base import Loss

_HELP = """\
Examine an experiment without training it.

Usage: losslab check GROUP=CHOICE KEY=VALUE ...

It takes the overrides of `losslab train`, builds the experiment, examines the first training batch, and reports each
problem with its reason and a fix. A loss of your own, or any loss with --contract, is also tested against the contract
of losslab's losses. The exit code is 1 if an error was found.

  losslab check model=cifar_cnn data=digits loss=focal
  losslab check loss=mse optimizer.lr=0.5
  losslab check loss=custom loss._target_=my_losses.Mine
"""

logger = logging.getLogger("losslab")


def check(arguments: Sequence[str] | None = None) -> None:
    """Examine the experiment of a command line, and exit with code 0 or 1."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"--help", "-h"} & set(arguments):
        sys.stdout.write(_HELP)
        return
    add_working_directory_to_path()
    start_command()
    overrides = [argument for argument in arguments if argument != "--contract"]
    with one_line_errors(show_all="traceback=true" in arguments):
        with imports_without_gc():
            from losslab.losses import catalog  # noqa: PLC0415
            from losslab.losses.contract.sample_inputs import CLASSES  # noqa: PLC0415
            from losslab.training import instantiate  # noqa: PLC0415
            from losslab.training.teacher import trusting  # noqa: PLC0415
        config = compose(overrides, run_dir="unused")
        passed = True
        if "--contract" in arguments or config["choices"]["loss"] not in catalog.names():
            with trusting(trust.parse_packages(config["trust"])):
                loss = instantiate.make_loss_without_data(config["loss"], CLASSES)
            estimates = getattr(loss, "output_kind", "") == "values"
            overrides_for_loss = _OVERRIDES["values" if estimates else loss.wants[0]]
            passed = _keeps_contract(loss)
            if not any(override.startswith(("model=", "data=", "experiment=")) for override in overrides):
                config = compose([*overrides_for_loss, *overrides], run_dir="unused")
        passed &= _examine(config)
    leave(0 if passed else 1)


_OVERRIDES = {
    "index": ("model=mlp", "data=digits"),
    "probabilities": ("model=mlp", "data=digits"),
    "binary": ("model=mlp", "data=breast_cancer"),
    "values": ("model=linear",),
}
"""The default model and data for each kind of target that a loss accepts."""


def _keeps_contract(loss: "Loss") -> bool:
    from losslab.analysis.loss_cards import card  # noqa: PLC0415
    from losslab.losses.contract.report import check_loss  # noqa: PLC0415

    name = getattr(loss, "name", type(loss).__name__)
    logger.info("%s\n", card.text(name, loss))
    verdicts = check_loss(loss)
    logger.info(
        "contract    %d of %d checks passed", sum(verdict.failure is None for verdict in verdicts), len(verdicts)
    )
    for verdict in verdicts:
        logger.info("%s", verdict)
    logger.info("")
    return all(verdict.failure is None for verdict in verdicts)


def _examine(config: dict[str, Any]) -> bool:
    """Examine an experiment, log its setup and the findings, and return whether there are no errors."""
    from losslab.doctor import Severity, report  # noqa: PLC0415
    from losslab.training import experiment as lab  # noqa: PLC0415
    from losslab.training import preflight, weights  # noqa: PLC0415

    experiment = lab.build_on_any_machine(config)
    experiment.data.prepare_data()
    experiment.data.setup()
    if config["ckpt_path"]:
        weights.initialize(experiment.learner, Path(config["ckpt_path"]))
    batch = preflight.first_batch(experiment.data)
    logger.info("%s", preflight.describe_setup(config["choices"], experiment.learner, batch))
    findings = preflight.examine_batch(experiment.learner, batch)
    logger.info("%s", report(findings))
    return not any(finding.severity is Severity.ERROR for finding in findings)
