"""`python scripts/evaluate.py`: measure a finished run again."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from losslab.cli.errors import one_line_errors
from losslab.cli.process import find_the_users_code, imports_without_gc, leave
from losslab.runs import RunFolder
from losslab.terminal import ConsoleHandler

logger = logging.getLogger("losslab")


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """`python scripts/evaluate.py RUN_FOLDER` and `losslab-evaluate`: measure a finished run again."""
    if "-sc" in sys.argv[1:]:
        return  # Hydra's completion of `python train.py` asks every script that python runs
    parser = argparse.ArgumentParser(description="Rebuild a run from its folder and print its metrics.")
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument(
        "--ckpt", default="best", metavar="best|last|PATH", help="the weights to evaluate (default: best)"
    )
    options = parser.parse_args(arguments)
    find_the_users_code()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ConsoleHandler()])
    with one_line_errors(show_all=False):
        folder = RunFolder(options.run_folder)
        config = folder.read_config()
        with imports_without_gc():
            from losslab import experiment as lab  # noqa: PLC0415
            from losslab import report, weights  # noqa: PLC0415
        experiment = lab.rebuild(folder, config)
        checkpoint = folder.checkpoint(options.ckpt)
        logger.info("weights     %s", checkpoint)
        weights.load(experiment.learner, checkpoint)
        report.results_table(lab.evaluate(experiment, options.split))
    leave(0)
