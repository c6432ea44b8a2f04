"""Run folders: the only package that knows their layout. Imports no torch, so that reading a thousand runs is quick.

RUN/.hydra/                 the configuration that Hydra composed, and the overrides
RUN/config.json             the resolved configuration: enough to instantiate the experiment without Hydra
RUN/data.json               shapes, classes and normalisation of the data: enough to use the network without the data
RUN/checkpoints/best.ckpt   the epoch with the best monitored metric
RUN/checkpoints/last.ckpt   the newest, to resume from; previous.ckpt is the one before; each with its .sha256
RUN/weights.pth             the plain state_dict of the network in the best epoch
RUN/faults.json             how the training data were corrupted, if they were, and their checksum
RUN/history.csv             a row per epoch, reproducible to the byte
RUN/timing.csv              a row per epoch, with wall times
RUN/path.csv                a row per epoch, with all weights of a small network
RUN/metrics.json            final values
RUN/dynamics.npz            outputs and gradients of some examples over training, if callbacks=dynamics
RUN/figures/*.png           figures
RUN/evaluation/NAME/        an evaluation, named by split and checkpoint: test, val, test+last, ...
RUN/exported.pt2            the network as a torch.export program
RUN/teacher/                config.json and weights.pth of the teacher, if the loss distils one
RUN/train.log               the log
RUN/events.out.tfevents.*   TensorBoard events

SWEEP/N-NAME/               the run folder of job N
SWEEP/summary.json          the state of each job
SWEEP/jobs.json             the resolved configuration of each job, from which the sweep can be completed

`folder` has the paths and readers of one run, `config` validates and identifies its configuration, `trust` checks which
names an untrusted configuration may contain, `lock` claims new folders, `search` finds runs and sweeps, `sweep_summary`
reads the states of jobs, `checkpoint` (which imports torch) finds the checkpoint to resume from.
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
