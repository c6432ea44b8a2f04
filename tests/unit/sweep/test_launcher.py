"""What the launcher prepares for each job, without starting processes."""

import shutil
from types import SimpleNamespace

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime, run_job, setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict

from losslab import CONF
from losslab.sweep.launcher import Launcher
from losslab.sweep.state import Sweep
from losslab.training.config import ProcessContext, register, resolve


@pytest.fixture
def prepared(tmp_path):
    """A function that prepares jobs with these overrides, and returns the launcher and its sweep."""

    def prepare(*jobs, hydra=()):
        register()
        setup_globals()
        JobRuntime.instance().set("name", "train")
        with initialize_config_dir(str(CONF), version_base="1.3"):
            loader = GlobalHydra.instance().hydra.config_loader
            settings = [f"run_dir={tmp_path}/sweep", "hydra.mode=MULTIRUN", *hydra]
            master = loader.load_configuration("train", settings, run_mode=RunMode.MULTIRUN)
        launcher, sweep = Launcher(), Sweep(tmp_path / "sweep")
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
        launcher.setup(hydra_context=context, task_function=SimpleNamespace(context=ProcessContext()), config=master)
        for job in sweep.add([[f"run_dir={tmp_path}/sweep", *overrides] for overrides in jobs], 3):
            launcher._prepare(job, sweep)
        return launcher, sweep

    yield prepare
    HydraConfig.instance().cfg = None


def written(job, write):
    """The files that `write` writes into .hydra of a job."""
    folder = job.task.log.parent / ".hydra"
    shutil.rmtree(folder, ignore_errors=True)
    write()
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("hydra", [(), ("hydra.sweep.subdir='job/${hydra:job.num}_${seed}'", "hydra.job.name=${name}")])
def test_members_of_a_group_get_the_files_that_hydra_writes_for_single_jobs(prepared, hydra):
    _, sweep = prepared(
        ["model=mlp", "seed=0", "name=a"],
        ["model=mlp", "seed=1", "name='b: c'"],
        ["seed=2", "+notes.x=1", "name=c"],
        hydra=hydra,
    )
    for job in sweep.jobs:
        assert job.reason is None
        context, _, config = job.task.arguments()

        def run(config=config, context=context):
            run_job(lambda _: None, config, "hydra.sweep.dir", "hydra.sweep.subdir", context, configure_logging=False)

        files = written(job, job.task.write_hydra_files)
        assert {*files} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
        assert files == written(job, run)


def test_jobs_have_the_configurations_that_their_processes_resolve(prepared):
    _, sweep = prepared(["seed=0", "optimizer.lr=0.1"], ["seed=1", "optimizer.lr=1e-3"])
    for job in sweep.jobs:
        _, _, config = job.task.arguments()
        assert job.task.log == sweep.folder / f"{job.number}-linear-line-mse-s{job.number - 3}" / "train.log"
        assert config.hydra.runtime.output_dir == str(job.task.log.parent)
        choices = config.hydra.runtime.choices
        with open_dict(config):
            del config["hydra"]
        assert job.config == resolve(config, choices, str(job.task.log.parent))


def test_a_job_that_cannot_be_composed_or_resolved_has_a_reason(prepared):
    _, sweep = prepared(["seed=x"], ["optimizer.typo=1"], ["optimizer.lr=???"])
    assert [(job.task is None, job.config) for job in sweep.jobs] == [(True, None), (True, None), (False, None)]
    assert "seed must be an integer, got 'x'" in sweep.jobs[0].reason
    assert "optimizer.typo" in sweep.jobs[1].reason
    assert "a value is missing: add optimizer.lr=..." in sweep.jobs[2].reason


def test_the_result_of_a_job_has_its_configuration(prepared):
    launcher, sweep = prepared(["seed=5"], ["seed=x"])
    done, failed = (launcher._result(job, sweep, report_failure=False) for job in sweep.jobs)
    assert (done.cfg.seed, "hydra" in done.cfg, done.hydra_cfg.hydra.job.num) == (5, False, 3)
    assert (failed.cfg, failed.hydra_cfg) == (None, None)


def test_resolving_leaves_the_configuration_unchanged(prepared):
    _, sweep = prepared(["seed=5", "+notes.text='${seed} ${name} ${choices.model}'"])
    _, _, config = sweep.jobs[0].task.arguments()
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    before = OmegaConf.to_container(config)
    first, second = (resolve(config, choices, "/run") for _ in range(2))
    assert first == second
    assert first["notes"]["text"] == "5 linear-line-mse-s5 linear"
    assert "notes.text" in first["per_run"]
    assert OmegaConf.to_container(config) == before
