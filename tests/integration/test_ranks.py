import hydra
import pytest

from losslab import CONF
from losslab.errors import LabError
from losslab.training.distributed import environment
from losslab.training.distributed.environment import RankInfo, current_rank, requested_processes


def test_alone_without_variables():
    assert current_rank({}) == RankInfo() == RankInfo(0, 1, 0, 1, 0)
    assert current_rank({"LOCAL_RANK": "1"}) == RankInfo()  # left behind by something else


def test_torchruns_variables_say_the_place():
    given = RankInfo(3, 4, 1, 2, 1)
    assert current_rank(given.variables) == given


SHELL = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = SHELL | {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "node[07-08]",
}


def test_srun_says_the_place():
    assert current_rank(STEP) == RankInfo(3, 4, 1, 2, 1)


@pytest.mark.parametrize(
    "step", [{}, {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}]
)
def test_a_batch_script_or_shell_of_slurms_is_one_process_whatever_the_job_may_have(step):
    assert current_rank(SHELL | step) == RankInfo()


def test_srun_with_fewer_tasks_than_the_job_may_have():
    fewer = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "1"}
    assert current_rank(STEP | fewer) == RankInfo(1, 2, 1, 2, 0)


def test_srun_with_more_tasks_on_one_machine_than_on_another():
    with pytest.raises(LabError, match="equally many"):
        current_rank(STEP | {"SLURM_STEP_NUM_TASKS": "3"})


def test_a_run_is_named_by_its_step_and_not_by_a_shell_in_which_others_may_follow(monkeypatch):
    for name, value in (STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}).items():
        monkeypatch.setenv(name, value)
    assert environment.job_id() == "slurm-7"
    monkeypatch.setenv("SLURM_STEP_ID", "2")
    assert environment.job_id() == "slurm-7.2"
    monkeypatch.setenv("SLURM_STEP_ID", "4294967290")
    assert environment.job_id() is None


def test_tasks_meet_on_the_steps_first_machine_and_not_where_another_step_meets():
    first = environment.rendezvous_address(STEP, one_machine=False)
    assert first["MASTER_ADDR"] == "node07"
    on_first = STEP | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    assert first == environment.rendezvous_address(on_first, one_machine=False)  # on every rank the same
    others = [STEP | {"SLURM_STEP_ID": "1"}, STEP | {"SLURM_JOB_ID": "8"}]
    ports = {environment.rendezvous_address(given, one_machine=False)["MASTER_PORT"] for given in (STEP, *others)}
    assert len(ports) == 3
    assert all(1024 < int(port) < 32768 for port in ports)
    assert environment.rendezvous_address(STEP | {"MASTER_PORT": "5"}, one_machine=False)["MASTER_PORT"] == "5"
    assert environment.rendezvous_address(STEP, one_machine=True)["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize(
    "changed", [{"RANK": "4"}, {"RANK": "x"}, {"WORLD_SIZE": "1"}, {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "9"}]
)
def test_variables_that_contradict_each_other_are_refused(changed):
    with pytest.raises(LabError, match="unset them"):
        current_rank(RankInfo(3, 4, 1, 2, 1).variables | changed)


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
    assert requested_processes(trainer, lambda: gpus) == count


@pytest.mark.parametrize("devices", [0, -2, "many", [], 1.5, {"a": 1}])
def test_devices_that_are_none_are_refused(devices):
    with pytest.raises(LabError, match=r"trainer\.devices must be"):
        requested_processes({"devices": devices, "accelerator": "cpu"}, lambda: 0)


def test_several_machines_need_somebody_who_starts_them():
    with pytest.raises(LabError, match="torchrun --nnodes 2"):
        requested_processes({"devices": 2, "num_nodes": 2}, lambda: 0)


def test_a_job_that_torchrun_or_slurm_named(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert environment.job_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert environment.job_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert environment.job_id() == "torchrun-mine"
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    assert environment.job_id() == "slurm-7"
    monkeypatch.setenv("SLURM_STEP_ID", "2")  # a further srun of the same job
    assert environment.job_id() == "slurm-7.2"


@pytest.mark.parametrize(
    ("overrides", "launcher"),
    [
        ([], "LosslabLauncher"),
        (["trainer=ddp"], "LosslabLauncher"),
        (["trainer=slurm"], "SlurmLauncher"),
        (["trainer=slurm", "hydra/launcher=submitit_local"], "LocalLauncher"),
    ],
)
def test_a_trainer_brings_its_launcher_of_sweeps(overrides, launcher):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides, return_hydra_config=True)
    assert cfg.hydra.launcher._target_.endswith(f".{launcher}")
