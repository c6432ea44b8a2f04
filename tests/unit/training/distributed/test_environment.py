import hydra
import pytest
from lightning.pytorch.strategies import StrategyRegistry

from losslab import CONF
from losslab.errors import LabError
from losslab.training.distributed import environment
from losslab.training.distributed.environment import RankInfo, current_rank, requested_processes

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


def test_without_variables_a_process_is_rank_0_of_1():
    assert current_rank({}) == RankInfo() == RankInfo(0, 1, 0, 1, 0)
    assert current_rank({"LOCAL_RANK": "1"}) == RankInfo()  # a variable that another program left


def test_rank_is_read_from_torchrun_variables():
    info = RankInfo(3, 4, 1, 2, 1)
    assert current_rank(info.variables) == info


def test_rank_is_read_from_srun_variables():
    assert current_rank(STEP) == RankInfo(3, 4, 1, 2, 1)


@pytest.mark.parametrize(
    "step", [{}, {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}]
)
def test_batch_script_or_shell_of_slurm_is_one_process(step):
    assert current_rank(SHELL | step) == RankInfo()


def test_rank_in_a_srun_step_with_fewer_tasks_than_the_job_allows():
    fewer = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "1"}
    assert current_rank(STEP | fewer) == RankInfo(1, 2, 1, 2, 0)


def test_srun_with_unequal_tasks_on_nodes_is_an_error():
    with pytest.raises(LabError, match="the same number on each"):
        current_rank(STEP | {"SLURM_STEP_NUM_TASKS": "3"})


@pytest.mark.parametrize(
    "changed", [{"RANK": "4"}, {"RANK": "x"}, {"WORLD_SIZE": "1"}, {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "9"}]
)
def test_contradictory_variables_are_an_error(changed):
    with pytest.raises(LabError, match="unset them"):
        current_rank(RankInfo(3, 4, 1, 2, 1).variables | changed)


def test_job_id_names_the_srun_step_and_is_none_in_a_slurm_shell(monkeypatch):
    for name, value in (STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}).items():
        monkeypatch.setenv(name, value)
    assert environment.job_id() == "slurm-7"
    monkeypatch.setenv("SLURM_STEP_ID", "2")
    assert environment.job_id() == "slurm-7.2"
    monkeypatch.setenv("SLURM_STEP_ID", "4294967290")
    assert environment.job_id() is None


def test_job_id_of_torchrun_and_slurm(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert environment.job_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert environment.job_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert environment.job_id() == "torchrun-mine"
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    assert environment.job_id() == "slurm-7"
    monkeypatch.setenv("SLURM_STEP_ID", "2")  # a second srun of the same job
    assert environment.job_id() == "slurm-7.2"


def test_rendezvous_is_on_the_first_machine_of_the_step_with_a_port_for_each_step():
    address = environment.rendezvous_address(STEP, one_machine=False)
    assert address["MASTER_ADDR"] == "node07"
    rank_0 = STEP | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    assert address == environment.rendezvous_address(rank_0, one_machine=False)
    others = [STEP | {"SLURM_STEP_ID": "1"}, STEP | {"SLURM_JOB_ID": "8"}]
    ports = {environment.rendezvous_address(each, one_machine=False)["MASTER_PORT"] for each in (STEP, *others)}
    assert len(ports) == 3
    assert all(1024 < int(port) < 32768 for port in ports)
    assert environment.rendezvous_address(STEP | {"MASTER_PORT": "5"}, one_machine=False)["MASTER_PORT"] == "5"
    assert environment.rendezvous_address(STEP, one_machine=True)["MASTER_ADDR"] == "127.0.0.1"


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
def test_requested_processes_are_as_many_as_lightning_starts(trainer, gpus, count):
    assert requested_processes(trainer, lambda: gpus) == count


@pytest.mark.parametrize("devices", [0, -2, "many", [], 1.5, {"a": 1}])
def test_invalid_devices_are_an_error(devices):
    with pytest.raises(LabError, match=r"trainer\.devices must be"):
        requested_processes({"devices": devices, "accelerator": "cpu"}, lambda: 0)


LIGHTNING = "lightning.pytorch.strategies."


SUPPORTED = ("auto", "ddp", "ddp_find_unused_parameters_true", {"_target_": f"{LIGHTNING}DDPStrategy"})


@pytest.mark.parametrize("strategy", [*SUPPORTED, {"_target_": "mine.Strategy"}])
def test_supported_strategies_start_processes(strategy):
    assert requested_processes({"devices": 2, "accelerator": "cpu", "strategy": strategy}, lambda: 0) == 2


def test_every_strategy_of_lightning_that_is_not_supported_is_refused_before_a_process_starts():
    names = set(StrategyRegistry.available_strategies()) | {"dp", "foo", "model_parallel"}
    supported = {"ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "single_device"}
    classes = [{"_target_": f"{LIGHTNING}{name}"} for name in ("FSDPStrategy", "ModelParallelStrategy")]
    for strategy in [*names - supported, *classes]:
        with pytest.raises(LabError, match=r"trainer\.strategy=\w+ is not supported: .*trainer=ddp_cpu"):
            requested_processes({"devices": 1, "strategy": strategy}, lambda: 0)


def test_strategies_that_fork_or_have_one_process_are_refused_for_several():
    fork = {"_target_": f"{LIGHTNING}DDPStrategy", "start_method": "fork"}
    with pytest.raises(LabError, match=r"trainer\.strategy\.start_method=fork is not supported"):
        requested_processes({"devices": 2, "accelerator": "cpu", "strategy": fork}, lambda: 0)
    assert requested_processes({"devices": 1, "strategy": "single_device"}, lambda: 0) == 1
    with pytest.raises(LabError, match=r"trainer\.strategy=single_device is not supported"):
        requested_processes({"devices": 2, "accelerator": "cpu", "strategy": "single_device"}, lambda: 0)


@pytest.mark.parametrize("accelerator", ["tpu", "hpu", "foo"])
def test_other_accelerators_are_refused(accelerator):
    with pytest.raises(LabError, match=rf"trainer\.accelerator={accelerator}: choose one of auto, cpu, gpu"):
        requested_processes({"accelerator": accelerator}, lambda: 0)


def test_several_nodes_need_torchrun():
    with pytest.raises(LabError, match="torchrun --nnodes 2"):
        requested_processes({"devices": 2, "num_nodes": 2}, lambda: 0)


@pytest.mark.parametrize(
    ("overrides", "launcher"),
    [
        ([], "LosslabLauncher"),
        (["trainer=ddp"], "LosslabLauncher"),
        (["trainer=slurm"], "SlurmLauncher"),
        (["trainer=slurm", "hydra/launcher=submitit_local"], "LocalLauncher"),
    ],
)
def test_trainer_group_selects_the_hydra_launcher(overrides, launcher):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides, return_hydra_config=True)
    assert cfg.hydra.launcher._target_.endswith(f".{launcher}")
