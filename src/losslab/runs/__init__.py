"""Run folders: the only package that knows their layout. Imports no torch, so that reading a thousand is quick.

RUN/.hydra/                 what Hydra composed, and from which overrides
RUN/config.json             the same, resolved: builds the experiment again without Hydra
RUN/data.json               what must be known of the data to use the network without them
RUN/checkpoints/best.ckpt   the epoch with the best monitored metric
RUN/checkpoints/last.ckpt   the newest; previous.ckpt the one before it; beside each its .sha256
RUN/weights.pth             the best epoch's plain state_dict of the network
RUN/faults.json             what was made wrong with the training data, if anything was, and their checksum
RUN/history.csv             a row an epoch, the same to the byte if the run is repeated
RUN/timing.csv              a row an epoch, of wall times
RUN/path.csv                a row an epoch, of all weights, if they are few
RUN/metrics.json            final values
RUN/dynamics.npz            what the loss did to some examples over training, under callbacks=dynamics
RUN/figures/*.png           what was drawn
RUN/evaluation/NAME/        what an evaluation found, named by what it looked at: test, val, test+last, ...
RUN/exported.pt2            the network as a program of torch.export's
RUN/teacher/                config.json and weights.pth of the run that taught this one, if one did
RUN/train.log               what was said
RUN/events.out.tfevents.*   what TensorBoard shows

SWEEP/summary.json          what became of its jobs, beside their run folders
"""

from losslab.io.json_files import to_json, write_json
from losslab.io.untrusted import read_text
from losslab.runs.folder import RunFolder, default_path, default_sweep_path, name, shown, stamp
from losslab.runs.lock import TakenError, abandoned, claim, discard, discard_sweep, held
from losslab.runs.search import SUMMARY, Found, search

__all__ = [
    "SUMMARY",
    "Found",
    "RunFolder",
    "TakenError",
    "abandoned",
    "claim",
    "default_path",
    "default_sweep_path",
    "discard",
    "discard_sweep",
    "held",
    "name",
    "read_text",
    "search",
    "shown",
    "stamp",
    "to_json",
    "write_json",
]
