"""`losslab export`: a finished run as a program that needs torch alone."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from losslab import runs
from losslab.cli.options import asked_by_completion, begin, command_parser, takes_data
from losslab.cli.process import imports_without_gc, leave, one_line_errors

logger = logging.getLogger("losslab")


def export(arguments: Sequence[str] | None = None) -> None:
    """`losslab export RUN_FOLDER` and `losslab export`: write and check a program of torch.export's."""
    if asked_by_completion():
        return
    options = _parser().parse_args(arguments)
    begin(trusted=options.trust)
    with one_line_errors(show_all=False):
        _export(options)
    leave(0)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Write the network of a run as a torch.export program for batches of any size. It takes uint8 pixels and "
        "normalises them itself (of tables, the prepared features), and gives probabilities or values. Its answers to "
        "real examples are compared with the model's before it is written."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write (default: RUN_FOLDER/exported.pt2)")
    parser.add_argument("--raw", action="store_true", help="give the network's raw outputs instead")
    takes_data(parser)
    return parser


def _export(options: argparse.Namespace) -> None:
    with imports_without_gc():
        from losslab.analysis.evaluate import export  # noqa: PLC0415
        from losslab.training.reopen import EvaluationRequest  # noqa: PLC0415
    look = EvaluationRequest(options.run_folder, checkpoint=options.ckpt, data=tuple(options.data))
    made = export.export(look, options.output, raw=options.raw)
    path = runs.display_path(made.path)
    lines = {
        "exported": f"{path}, {made.path.stat().st_size / 1e6:.2f} MB",
        "inputs": made.inputs,
        "outputs": made.outputs + (f": {', '.join(made.names)}" if 0 < len(made.names) <= 20 else ""),
        "checked": f"on {made.examples:,} real examples: at most {made.difference:.2g} from the model's own answers",
        "load": f'network = torch.export.load("{path}").module()',
        "use": "with torch.no_grad(): answers = network(inputs)",
    }
    for name, value in lines.items():
        logger.info("%-11s %s", name, value)
