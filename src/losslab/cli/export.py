"""`losslab export`: write the network of a finished run as a torch.export program."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from losslab import runs
from losslab.cli.process import add_data_option, fast_imports, run_parser, run_verb

logger = logging.getLogger("losslab")


def export(arguments: Sequence[str] | None = None) -> None:
    """Export the network of a run, and check the exported program."""
    parser = run_parser(
        "Write the network of a run as a torch.export program for batches of any size. The program takes uint8 pixels "
        "and normalises them itself (for tabular data it takes the prepared features), and returns probabilities or "
        "values. Before it is written, its outputs for real examples are compared with those of the network."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="output file (default: RUN_FOLDER/exported.pt2)")
    parser.add_argument("--raw", action="store_true", help="return raw outputs, such as logits")
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_verb(_export, options)


def _export(options: argparse.Namespace) -> None:
    with fast_imports():
        from losslab.analysis.evaluate import export  # noqa: PLC0415
        from losslab.training.reopen import EvaluationRequest  # noqa: PLC0415
    request = EvaluationRequest(options.run_folder, checkpoint=options.ckpt, data=options.data, trusted=options.trust)
    exported = export.export(request, options.output, raw=options.raw)
    path = runs.display_path(exported.path)
    lines = {
        "exported": f"{path}, {exported.path.stat().st_size / 1e6:.2f} MB",
        "inputs": exported.inputs,
        "outputs": exported.outputs + (f": {', '.join(exported.names)}" if 0 < len(exported.names) <= 20 else ""),
        "checked": f"on {exported.examples:,} real examples: outputs differ by at most {exported.difference:.2g}",
        "load": f'network = torch.export.load("{path}").module()',
        "use": "with torch.no_grad(): outputs = network(inputs)",
    }
    for name, value in lines.items():
        logger.info("%-11s %s", name, value)
