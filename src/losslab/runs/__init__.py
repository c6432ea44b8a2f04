"""Run folders: the only package that knows their layout. Imports no torch, so that reading a thousand is quick.

RUN/.hydra/                 what Hydra composed, and the overrides
RUN/config.json             the resolved configuration: builds the experiment without Hydra
RUN/data.json               shapes, classes and normalisation of the data: enough to use the network without them
RUN/checkpoints/best.ckpt   the epoch with the best monitored metric
RUN/checkpoints/last.ckpt   the newest, to resume from; previous.ckpt is the one before; beside each its .sha256
RUN/weights.pth             the best epoch's plain state_dict of the network
RUN/faults.json             how the training data were corrupted, if they were, and their checksum
RUN/history.csv             a row per epoch, reproducible to the byte
RUN/timing.csv              a row per epoch, with wall times
RUN/path.csv                a row per epoch, with all weights of a small network
RUN/metrics.json            final values
RUN/dynamics.npz            what callbacks=dynamics recorded of some examples over training
RUN/figures/*.png           figures
RUN/evaluation/NAME/        an evaluation, named by split and checkpoint: test, val, test+last, ...
RUN/exported.pt2            the network as a program of torch.export
RUN/teacher/                config.json and weights.pth of the teacher, if a loss distils one
RUN/train.log               the log
RUN/events.out.tfevents.*   TensorBoard's events

SWEEP/summary.json          the state of each job; the jobs' run folders lie beside it
SWEEP/jobs.json             the resolved configuration of each job, from which the sweep can be completed

`folder` has the paths and readers of one run, `config` checks and identifies its configuration, `trust` decides what a
configuration of somebody else may name, `lock` claims new folders, `search` finds runs, `checkpoint` (with torch) finds
the one to resume from.
"""

from losslab.io.json_files import to_json, write_json
from losslab.io.untrusted import read_text
from losslab.runs.folder import RunFolder, default_name, default_run_dir, default_sweep_dir, display_path, timestamp
from losslab.runs.lock import FolderTakenError, claim, discard, discard_sweep, is_unlocked, lock
from losslab.runs.search import JOBS, SUMMARY, FoundRuns, find_runs

__all__ = [
    "JOBS",
    "SUMMARY",
    "FolderTakenError",
    "FoundRuns",
    "RunFolder",
    "claim",
    "default_name",
    "default_run_dir",
    "default_sweep_dir",
    "discard",
    "discard_sweep",
    "display_path",
    "find_runs",
    "is_unlocked",
    "lock",
    "read_text",
    "timestamp",
    "to_json",
    "write_json",
]
