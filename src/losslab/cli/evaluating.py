"""`python scripts/evaluate.py`: measure a finished run, on one process or several."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from losslab import ranks
from losslab.cli import run_options
from losslab.cli.errors import one_line_errors
from losslab.cli.process import imports_without_gc, leave
from losslab.errors import LabError
from losslab.terminal import printable

logger = logging.getLogger("losslab")


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """`python scripts/evaluate.py RUN_FOLDER` and `losslab-evaluate`: measure a finished run, and write it down."""
    if run_options.asked_by_completion():
        return
    options = _parser().parse_args(arguments)
    place = ranks.here()
    run_options.begin(logging.INFO if place.rank == 0 else logging.ERROR, options.trust)
    with one_line_errors(show_all=False):
        if options.devices is None or place.world > 1:  # torchrun has started the processes
            _evaluate(options)
        else:
            _in_ranks(options)
    leave(0)


def _parser() -> argparse.ArgumentParser:
    parser = run_options.parser(
        "Rebuild a run from its folder, measure it on a split of its data, and write report, figures and predictions "
        "to RUN_FOLDER/evaluation."
    )
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    run_options.takes_data(parser)
    parser.add_argument(
        "--soft-labels",
        type=Path,
        metavar="FILE.npy",
        help="people's distributions over the classes (N, C), in the order of the split: hold the network against them",
    )
    parser.add_argument(
        "--devices", type=_positive, metavar="N", help="share the work between N processes, a GPU each where there are"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write (default: in the run folder)")
    return parser


def _positive(typed: str) -> int:
    if not typed.isdigit() or int(typed) < 1:
        message = f"a number of processes, 1 or more: got {typed}"
        raise argparse.ArgumentTypeError(message)
    return int(typed)


def _in_ranks(options: argparse.Namespace) -> None:
    """Evaluate in so many processes of this machine, and wait for them."""
    from losslab import asking, processes  # noqa: PLC0415
    from losslab.child import Surroundings  # noqa: PLC0415
    from losslab.runs import RunFolder  # noqa: PLC0415

    RunFolder(options.run_folder).read_settings()  # before a process is started for nothing
    world = options.devices
    if world == 1:
        _evaluate(options)
        return
    found = len(asking.gpus())
    if 0 < found < world:
        message = f"--devices {world}: there is a GPU for {found}; ask for as many, or hide them: CUDA_VISIBLE_DEVICES="
        raise LabError(message)
    run = processes.Run(_rank, [(options,)] * world, Surroundings(threads=processes.share(world)))
    outcome = processes.follow(run)
    if outcome.trace:  # nothing that the user can mend: as in one process, it ends with the reason
        sys.stderr.write(printable(outcome.trace))
        leave(1)
    if outcome.reason is not None:
        raise LabError(outcome.reason)


def _rank(options: argparse.Namespace) -> None:
    run_options.begin(logging.INFO if ranks.here().rank == 0 else logging.ERROR, options.trust)
    _evaluate(options)


def _evaluate(options: argparse.Namespace) -> None:
    with imports_without_gc():
        from losslab.cli import findings  # noqa: PLC0415
        from losslab.evaluation import evaluating, folder  # noqa: PLC0415
        from losslab.evaluation.opening import Look  # noqa: PLC0415
    look = Look(options.run_folder, options.split, options.ckpt, tuple(options.data))
    found = evaluating.evaluate(look, options.soft_labels)
    if ranks.here().rank > 0:
        return
    findings.say(found)
    where = options.output or found.experiment.folder.evaluation(folder.name(look, options.soft_labels))
    written = folder.write(found, where)
    findings.closing(where, written)
