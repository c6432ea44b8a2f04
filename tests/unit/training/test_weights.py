"""Files of weights: which one a path stands for, and those of other programs."""

import folders
import pytest
import torch

from losslab.errors import LabError
from losslab.training import weights


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def test_a_run_folder_stands_for_its_best_weights(tmp_path):
    run = folders.run(tmp_path / "run")
    plain = save(run / "weights.pth", {})
    assert weights.find(run) == plain
    last = save(run / "checkpoints" / "last.ckpt", {})
    assert weights.find(run / "checkpoints") == last
    best = save(run / "checkpoints" / "best.ckpt", {})
    assert weights.find(run) == weights.find(run / "checkpoints") == best


def test_a_folder_with_one_file_of_weights_stands_for_this_file(tmp_path):
    only = save(tmp_path / "epoch=9.ckpt", {})
    assert weights.find(tmp_path) == weights.find(only) == only


def test_a_path_with_no_or_several_meanings_is_refused_with_what_to_type(tmp_path):
    run = folders.run(tmp_path / "sweep" / "0-a")
    for name in ("epoch=1.ckpt", "epoch=2.ckpt"):
        save(tmp_path / "several" / name, {})
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "sweep", f"is a folder: choose one of its 1 runs, such as {run}"),
        (tmp_path / "several", f"choose one of its 2 checkpoints, such as {tmp_path}/several/epoch=1.ckpt"),
        (tmp_path / "empty", "is a folder: it contains no checkpoint"),
        (tmp_path / "several" / "epch=1.ckpt", f"did you mean {tmp_path}/several/epoch=1.ckpt?"),
        (tmp_path / "nowhere", "no checkpoint at"),
    ):
        with pytest.raises(LabError) as error:
            weights.find(path)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {}, "epoch": 3},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    ],
)
def test_weights_of_another_program_are_loaded(build, tmp_path, wrap):
    learner = build().learner
    state = {name: torch.full_like(value, 7.0) for name, value in learner.network.state_dict().items()}
    weights.initialize(learner, save(tmp_path / "other.ckpt", wrap(state)))
    assert all((value == 7.0).all() for value in learner.network.state_dict().values())
