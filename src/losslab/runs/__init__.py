"""Run folders: their layout, and how to read and check them. No torch is imported, so a thousand runs are read quickly.

RUN/.hydra/                 the configuration that Hydra composed, and the overrides
RUN/config.json             the resolved configuration: enough to instantiate the experiment without Hydra
RUN/data.json               shapes, classes and normalisation of the data: enough to use the network without the data
RUN/checkpoints/best.ckpt   the epoch with the best monitored metric
RUN/checkpoints/last.ckpt   the newest checkpoint, to resume from; previous.ckpt is the one before; each has a .sha256
RUN/weights.pth             the plain state_dict of the network in the best epoch
RUN/faults.json             if the training data were corrupted: how, and the checksum of the data
RUN/history.csv             a row of metrics per epoch, reproducible to the byte
RUN/timing.csv              the wall times of each epoch
RUN/path.csv                all weights of a small network after each epoch
RUN/metrics.json            final values of the metrics; exists only if the run has finished
RUN/dynamics.npz            outputs and gradients of some examples after each epoch, with callbacks=dynamics
RUN/figures/*.png           figures
RUN/evaluation/NAME/        an evaluation, named after its split and checkpoint: test, val, test+last, ...
RUN/exported.pt2            the network as a torch.export program
RUN/teacher/                config.json and weights.pth of the teacher, if the loss distils one
RUN/train.log               the log
RUN/events.out.tfevents.*   TensorBoard events

SWEEP/N-NAME/               the run folder of job N
SWEEP/summary.json          the state of each job
SWEEP/jobs.json             the resolved configuration of each job, from which the sweep can be completed
SWEEP/fused/N/train.log     the log of group N of jobs that trained as one
SWEEP/fused/N/parts.json    the members of each part, if the group was divided to fit into the memory
SWEEP/fused/N/results.json  how each of these jobs ended; exists only if the group has ended
SWEEP/fused/N/checkpoints/  while the group trains: last.ckpt and previous.ckpt, from which it resumes

STUDY/tune/, STUDY/race/    the sweeps of a study
STUDY/study.json            the command of the study, and its results once it has ended
STUDY/answer.md, .csv       the answer, with figures next to it
STUDY/test_items/*.npz      the scores of the test examples of each run in the race

Modules: `folder` (paths and readers of a run, search for runs), `config` (validation and identity of configurations),
`trust` (names and paths that an untrusted configuration may contain), `renames` (old names of classes), `lock` (claims
and locks folders), `sweep_summary` (states of jobs), `resume_checkpoint` (finds the newest intact one; imports torch).
"""

from losslab.io.atomic import write_json
from losslab.io.untrusted import read_text
from losslab.runs.folder import (
    JOBS,
    STUDY,
    SUMMARY,
    FoundRuns,
    RunFolder,
    check_name,
    default_name,
    default_run_dir,
    display_path,
    find_runs,
    timestamp,
)  # fmt: skip
from losslab.runs.lock import FolderTakenError, claim, discard, discard_sweep, lock, lock_all

__all__ = [
    "JOBS", "STUDY", "SUMMARY", "FolderTakenError", "FoundRuns", "RunFolder", "check_name", "claim", "default_name",
    "default_run_dir", "discard", "discard_sweep", "display_path", "find_runs", "lock", "lock_all", "read_text",
    "timestamp", "write_json",
]  # fmt: skip
