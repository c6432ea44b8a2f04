import pytest

from losslab import ranks
from losslab.errors import LabError
from losslab.ranks import Place, here, wanted


def test_alone_without_variables():
    assert here({}) == Place() == Place(0, 1, 0, 1, 0)
    assert here({"LOCAL_RANK": "1"}) == Place()  # left behind by something else


def test_torchruns_variables_say_the_place():
    given = Place(3, 4, 1, 2, 1)
    assert here(given.variables) == given


def test_slurms_variables_say_the_place_but_not_in_an_interactive_shell():
    slurm = {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
    assert here(slurm) == Place()
    assert here(slurm | {"SLURM_STEP_ID": "0"}) == Place(3, 4, 1, 2, 1)


@pytest.mark.parametrize(
    "changed", [{"RANK": "4"}, {"RANK": "x"}, {"WORLD_SIZE": "1"}, {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "9"}]
)
def test_variables_that_contradict_each_other_are_refused(changed):
    with pytest.raises(LabError, match="unset them"):
        here(Place(3, 4, 1, 2, 1).variables | changed)


@pytest.mark.parametrize(
    ("trainer", "gpus", "count"),
    [
        ({}, 8, 1),
        ({"devices": 1}, 8, 1),
        ({"devices": "auto", "accelerator": "gpu"}, 8, 8),
        ({"devices": "auto", "accelerator": "gpu"}, 0, 1),
        ({"devices": "auto", "accelerator": "cpu"}, 8, 1),
        ({"devices": "auto", "accelerator": "auto"}, 2, 2),
        ({"devices": "auto", "accelerator": "auto"}, 0, 1),
        ({"devices": -1, "accelerator": "cuda"}, 3, 3),
        ({"devices": 2, "accelerator": "cpu"}, 0, 2),
        ({"devices": "2", "accelerator": "cpu"}, 0, 2),
        ({"devices": [0, 3], "accelerator": "gpu"}, 4, 2),
        ({"devices": "1,3,", "accelerator": "gpu"}, 4, 2),
        ({"devices": [1], "accelerator": "gpu"}, 4, 1),
        ({"devices": 4, "accelerator": "mps"}, 0, 1),
    ],
)
def test_devices_are_read_as_lightning_reads_them(trainer, gpus, count):
    assert wanted(trainer, lambda: gpus) == count


@pytest.mark.parametrize("devices", [0, -2, "many", [], 1.5, {"a": 1}])
def test_devices_that_are_none_are_refused(devices):
    with pytest.raises(LabError, match=r"trainer\.devices must be"):
        wanted({"devices": devices, "accelerator": "cpu"}, lambda: 0)


def test_several_machines_need_somebody_who_starts_them():
    with pytest.raises(LabError, match="torchrun --nnodes 2"):
        wanted({"devices": 2, "num_nodes": 2}, lambda: 0)


def test_a_job_that_torchrun_or_slurm_named(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert ranks.job_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert ranks.job_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert ranks.job_id() == "torchrun-mine"
    for name, value in {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    assert ranks.job_id() == "slurm-7"
