"""`losslab check`: examine an experiment, and test a loss against losslab's contract for losses. Trains nothing."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losslab.cli.process import fast_imports, run_hydra_verb
from losslab.runs import trust
from losslab.training.config import compose

if TYPE_CHECKING:
    from losslab.losses.base import Loss

_HELP = """\
Examine an experiment without training it.

Usage: losslab check [--contract] GROUP=CHOICE KEY=VALUE ...

It takes the overrides of `losslab train`, builds the experiment, examines the first training batch, and reports each
problem with its reason and a fix. A loss of your own, or any loss with --contract, is also tested against the contract
of losslab's losses; then, without model=, data= or experiment=, the model and data are those that fit the loss. The
exit code is 1 if an error was found.

  losslab check model=cifar_cnn data=digits loss=focal
  losslab check loss=mse optimizer.lr=0.5
  losslab check loss=custom loss._target_=my_losses.Mine
"""

logger = logging.getLogger("losslab")


_DEFAULTS_BY_KIND = {"binary": ("model=mlp", "data=breast_cancer"), "values": ("model=linear",)}
"""Maps a kind of target to the default model and data. For other kinds they are model=mlp data=digits."""


def check(arguments: Sequence[str] | None = None) -> None:
    """Examine the experiment on the command line. Exit with code 1 if an error was found, otherwise with 0."""
    run_hydra_verb(_check, arguments, _HELP)


def _check(arguments: list[str]) -> int:
    """Examine the experiment, and test its loss if the loss is the user's or with --contract. Return the exit code."""
    with fast_imports():
        from losslab.losses import catalog  # noqa: PLC0415
        from losslab.losses.contract.sample_inputs import CLASSES  # noqa: PLC0415
        from losslab.training import instantiate  # noqa: PLC0415
        from losslab.training.teacher import trusting  # noqa: PLC0415
    overrides = [argument for argument in arguments if argument != "--contract"]
    config = compose(overrides, run_dir="unused")
    passed = True
    if "--contract" in arguments or config["choices"]["loss"] not in catalog.names():
        with trusting(trust.parse_packages(config["trust"])):
            loss = instantiate.make_loss_without_data(config["loss"], CLASSES)
        passed = _check_contract(loss)
        if not any(override.startswith(("model=", "data=", "experiment=")) for override in overrides):
            kind = "values" if getattr(loss, "output_kind", "") == "values" else loss.wants[0]
            config = compose([*_DEFAULTS_BY_KIND.get(kind, ("model=mlp", "data=digits")), *overrides], run_dir="unused")
    passed &= _examine(config)
    return 0 if passed else 1


def _check_contract(loss: "Loss") -> bool:
    """Log the card of a loss and the result of each check of the contract. Return whether all checks passed."""
    from losslab.analysis.loss_cards import card_text  # noqa: PLC0415
    from losslab.losses.contract.claims import check_loss  # noqa: PLC0415

    name = getattr(loss, "name", type(loss).__name__)
    logger.info("%s\n", card_text.text(name, loss))
    if not loss.scores_examples:
        logger.info("contract    not tested, because it is about losses of examples, and this loss has none\n")
        return True
    verdicts = check_loss(loss)
    logger.info(
        "contract    %d of %d checks passed", sum(verdict.failure is None for verdict in verdicts), len(verdicts)
    )
    for verdict in verdicts:
        logger.info("%s", verdict)
    logger.info("")
    return all(verdict.failure is None for verdict in verdicts)


def _examine(config: dict[str, Any]) -> bool:
    """Examine an experiment, and log its setup and the findings. Return whether none of the findings is an error."""
    from losslab.doctor import Severity, report  # noqa: PLC0415
    from losslab.training import preflight, weights  # noqa: PLC0415
    from losslab.training.experiment import build_on_any_machine  # noqa: PLC0415

    experiment = build_on_any_machine(config)
    experiment.data.prepare_data()
    experiment.data.setup()
    if config["ckpt_path"]:
        weights.initialize(experiment.learner, Path(config["ckpt_path"]))
    batch = preflight.first_batch(experiment.data)
    logger.info("%s", preflight.describe_setup(config["choices"], experiment.learner, batch))
    findings = preflight.examine_batch(experiment.learner, batch)
    logger.info("%s", report(findings))
    preflight.check_last_batch(experiment.learner, experiment.data, experiment.trainer)
    return not any(finding.severity is Severity.ERROR for finding in findings)
