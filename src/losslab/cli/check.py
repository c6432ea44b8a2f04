"""`losslab check`: the doctor, and the contract of a loss. Nothing is trained, no run folder is written."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losslab.cli.options import begin
from losslab.cli.process import add_working_directory_to_path, imports_without_gc, leave, one_line_errors
from losslab.runs import trust
from losslab.training.config import compose

if TYPE_CHECKING:
    from losslab.losses.base import Loss

_USAGE = """\
Look at a set-up without training it.

Usage: losslab check GROUP=CHOICE KEY=VALUE ...      (losslab check, where it is installed)

It takes what train.py takes, builds it, looks at the first training batch, and says what is wrong, why, and how to mend
it. A loss that is none of losslab's own, or any with --contract, is also put through the contract that all losses here
keep. Exit code 1 where something is surely wrong.

  losslab check model=cifar_cnn data=digits loss=focal
  losslab check loss=mse optimizer.lr=0.5
  losslab check loss=custom loss._target_=my_losses.Mine
"""

logger = logging.getLogger("losslab")


def check(arguments: Sequence[str] | None = None) -> None:
    """Check what the command line describes, and leave with exit code 0 or 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "-sc" in given:
        return  # Hydra's completion of `python train.py` asks every script that python runs
    if {"--help", "-h"} & set(given):
        sys.stdout.write(_USAGE)
        return
    add_working_directory_to_path()
    begin()
    overrides = [argument for argument in given if argument != "--contract"]
    with one_line_errors(show_all="traceback=true" in given):
        with imports_without_gc():
            from losslab.losses import catalog  # noqa: PLC0415
            from losslab.losses.contract.sample_inputs import CLASSES  # noqa: PLC0415
            from losslab.training import instantiate  # noqa: PLC0415
        config = compose(overrides, run_dir="unused")
        trust.also(config["trust"])
        sound = True
        if "--contract" in given or config["choices"]["loss"] not in catalog.names():
            loss = instantiate.make_alone(config["loss"], CLASSES)
            estimates = getattr(loss, "output_kind", "") == "values"
            twin = _TWINS["values" if estimates else loss.wants[0]]
            sound = _keeps_the_contract(loss)
            if not any(override.startswith(("model=", "data=", "experiment=")) for override in overrides):
                config = compose([*twin, *overrides], run_dir="unused")
        sound &= _set_up_is_sound(config)
    leave(0 if sound else 1)


_TWINS = {
    "index": ("model=mlp", "data=digits"),
    "probabilities": ("model=mlp", "data=digits"),
    "binary": ("model=mlp", "data=breast_cancer"),
    "values": ("model=linear",),
}
"""What a loss is tried on when nothing was said: data that give the targets it takes."""


def _keeps_the_contract(loss: "Loss") -> bool:
    from losslab.analysis.loss_cards import card  # noqa: PLC0415
    from losslab.losses.contract.report import check_loss  # noqa: PLC0415

    name = getattr(loss, "name", type(loss).__name__)
    logger.info("%s\n", card.text(name, loss))
    found = check_loss(loss)
    logger.info("contract    %d of %d hold", sum(verdict.wrong is None for verdict in found), len(found))
    for verdict in found:
        logger.info("%s", verdict)
    logger.info("")
    return all(verdict.wrong is None for verdict in found)


def _set_up_is_sound(config: dict[str, Any]) -> bool:
    """Print what was looked at and what was found → whether nothing is surely wrong."""
    from losslab.doctor import Severity, report  # noqa: PLC0415
    from losslab.training import experiment as lab  # noqa: PLC0415
    from losslab.training import preflight, weights  # noqa: PLC0415

    experiment = lab.build_to_look_at(config)
    experiment.data.prepare_data()
    experiment.data.setup()
    if config["ckpt_path"]:
        weights.load(experiment.learner, Path(config["ckpt_path"]), start=True)
    batch = preflight.first_batch(experiment.data)
    logger.info("%s", preflight.looked_at(config["choices"], experiment.learner, batch))
    found = preflight.findings(experiment.learner, batch)
    logger.info("%s", report(found))
    return not any(finding.severity is Severity.ERROR for finding in found)
