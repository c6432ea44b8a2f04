"""Which checkpoints a run or a group resumes from."""

import pytest
import torch

from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.runs.resume_checkpoint import find_resume_point
from losslab.training.callbacks.checkpoint import write_checkpoint

COUNTS = {"epoch_progress": {}, "epoch_loop.batch_progress": {}, "epoch_loop.state_dict": {}}


def written(path, sums, **learner):
    """A run folder with a checkpoint of step 3, in which a metric has this sum."""
    folder = RunFolder(path)
    state = {"sums": torch.tensor([[[sums, 1.0]]]), "values": {}, "fresh": [], "loader": {}} | learner
    whole = {"epoch": 0, "global_step": 3, "state_dict": {}, "loops": {"fit_loop": COUNTS}, "optimizer_states": [{}]}
    write_checkpoint(whole | {"learner": state}, folder.last)
    return folder


def test_a_metric_that_overflows_does_not_prevent_a_resume(tmp_path):
    assert find_resume_point(written(tmp_path, torch.inf)).step == 3


def test_a_sum_that_is_nan_is_refused(tmp_path):
    with pytest.raises(LabError, match="the sums in its learner are NaN"):
        find_resume_point(written(tmp_path, torch.nan))


def test_a_group_of_which_a_member_is_nan_resumes(tmp_path):
    assert find_resume_point(written(tmp_path, torch.nan, active=torch.tensor([False]))).step == 3
