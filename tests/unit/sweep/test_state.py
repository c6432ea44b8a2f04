"""The jobs of a sweep, and the files that describe them."""

import json
from pathlib import Path

from losslab import runs
from losslab.sweep.state import Sweep


def test_run_folders_of_a_sweep_may_be_outside_its_folder(tmp_path):
    sweep = Sweep(tmp_path / "sweep")
    (job,) = sweep.add([["seed=0"]], 0)
    job.folder = tmp_path / "elsewhere" / "0"
    sweep.write()
    assert json.loads((tmp_path / "sweep" / runs.SUMMARY).read_text())["jobs"][0]["folder"] == "../elsewhere/0"


def test_the_label_of_a_job_leaves_out_overrides_that_all_jobs_share():
    jobs = Sweep(Path()).add([["a=1", "b=True"], ["a=2", "b=True"]], 0, ["a=1,2", "b=true"])
    assert [job.label for job in jobs] == ["a=1", "a=2"]


def test_the_configurations_of_all_jobs_are_written(tmp_path):
    sweep = Sweep(tmp_path, n_jobs=3)
    first, second = sweep.add([["seed=0"], ["seed=x"]], 4)
    first.config, second.reason = {"run_dir": str(tmp_path / "4-run")}, "seed must be an integer"
    first.group = 2
    sweep.write_jobs()
    assert json.loads((tmp_path / runs.JOBS).read_text()) == {
        "all_known": True,
        "n_jobs": 3,
        "jobs": [
            {"job": 4, "overrides": ["seed=0"], "folder": "4-run", "config": first.config, "reason": None,
             "group": 2},
            {"job": 5, "overrides": ["seed=x"], "folder": None, "config": None, "reason": second.reason,
             "group": None},
        ],
    }  # fmt: skip
