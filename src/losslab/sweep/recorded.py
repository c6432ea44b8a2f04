"""Completes a sweep from the job configurations that its folder records. Imports no torch.

The folder is untrusted: its configurations must pass the same checks as the config.json of a run.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from losslab import runs
from losslab.errors import LabError
from losslab.io.untrusted import check_folder, check_output_path, read_json
from losslab.runs import RunFolder
from losslab.runs.config import find_problem
from losslab.runs.renames import rename_targets
from losslab.runs.sweep_summary import read_command, read_summary_rows
from losslab.runs.trust import check_targets, check_write_paths
from losslab.sweep.job_scheduler import JobLimits, run_jobs
from losslab.sweep.resume import ExistingRuns, repeated_command
from losslab.sweep.state import FUSED, Job, JobCall, Sweep
from losslab.training.config import ProcessContext
from losslab.training.distributed import spawn


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is the folder of a sweep rather than of a run."""
    return (folder / runs.SUMMARY).is_file() and not RunFolder(folder).config.exists()


def complete(
    folder: Path,
    function: Callable[[dict[str, Any], bool], Any],
    context: ProcessContext,
    *,
    changes: Mapping[str, str],
    trusted: Sequence[str] = (),
) -> None:
    """Run the jobs of a sweep that are not done.

    Args:
        folder: the folder of the sweep.
        function: called as `function(config, resumes)` to train a resolved configuration.
        context: the context of this process, whose `sweep` will be set.
        changes: new values by config key. They must not change the results.
        trusted: the packages that the user trusts.

    Raises:
        LabError: the folder records no jobs, or a job contains a `_target_` or a path that is not allowed.
    """
    spawn.process_context()  # starts the forkserver, which imports torch while the jobs are read
    sweep, rows = _read(folder.absolute())
    sweep.lock()
    settings = dict(changes)
    if "hydra.launcher.n_jobs" in settings:
        sweep.n_jobs = _parse(settings.pop("hydra.launcher.n_jobs"))
    JobLimits(sweep.n_jobs)  # raises if n_jobs is invalid
    for job, row in zip(sweep.add([row["overrides"] for row in rows], 0), rows, strict=True):
        job.number, job.reason = row["job"], row["reason"]
        if row["config"] is not None:
            job.config = relocate(rename_targets(row["config"]), sweep.folder / row["folder"])
            change(job.config, settings)
            job.config["trust"] = list(trusted)
    configs = {f"job {job.number}": job.config for job in sweep.jobs}
    if len(configs) < len(sweep.jobs):  # a configuration would not be checked
        raise LabError(f"two jobs of {runs.display_path(sweep.folder)} have the same number: type its command again")
    spawn.run_in_subprocess(check_targets, configs, sweep.folder / runs.JOBS, trusted)  # check_targets imports torch

    def prepare(job: Job, sweep: Sweep, run_folder: Path | None = None) -> None:
        """Set the function call of a job that runs in `run_folder`, by default a folder with the job's number."""
        if job.config is None:
            return
        name = Path(job.config["run_dir"]).name.partition("-")[2]
        path = run_folder or sweep.folder / f"{job.number}-{name}"
        if path.parent != sweep.folder or path.name == ".." or path.is_symlink() or "${" in path.name:
            raise LabError(
                f"{path} is not a folder in {sweep.folder}: nothing was created. Type the sweep's command again"
            )
        if path.exists():
            check_folder(path)
        job.config = relocate(job.config, path)
        check_write_paths(job.config, path, trusted)
        config = job.config
        job.task = JobCall(function, lambda: (config,), job.config["trainer"], RunFolder(path).log)

    for job in sweep.jobs:
        prepare(job, sweep, None if job.config is None else Path(job.config["run_dir"]))
    run_jobs(sweep, sweep.jobs, prepare, ExistingRuns(sweep.folder), context)


def relocate(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a configuration for the current location of its run folder: each value that equals run_dir is replaced.

    Raises:
        LabError: the run_dir of the configuration is not a path.
    """
    old = config.get("run_dir")
    if not isinstance(old, str) or not old or "\0" in old:
        raise LabError(f"{folder}: its run_dir is not a path: nothing was instantiated. Start the run again")
    return dict(_replace(config, old, str(folder)))


def _replace(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: each if key == "_target_" else _replace(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_replace(each, old, new) for each in value]
    return new if value == old else value


def change(config: dict[str, Any], settings: Mapping[str, str]) -> None:
    """Change settings of a configuration in place, as KEY=VALUE on the command line does."""
    for key, text in settings.items():
        group, _, name = key.rpartition(".")
        is_path = key == "data.dir" and text[:1] not in {"'", '"'}  # taken as typed
        (config[group] if group else config)[name] = text if is_path and text != "null" else _parse(text)


def _parse(text: str) -> Any:
    """Parse the value of KEY=VALUE as YAML."""
    return OmegaConf.from_dotlist([f"value={text}"])["value"]


def _read(folder: Path) -> tuple[Sweep, list[dict[str, Any]]]:
    """Return a sweep without jobs, and a row for each of its jobs as in jobs.json."""
    for path in folder.iterdir():
        check_output_path(path, folder)
    if (folder / FUSED).is_dir():
        check_folder(folder / FUSED)
    file, started = folder / runs.JOBS, (folder / runs.SUMMARY).stat().st_size > 0
    if not file.exists():
        if not started:
            raise LabError(f"{folder} contains no started sweep: delete it and start the sweep again")
        return _read_from_runs(folder)  # an early version of losslab wrote no jobs.json
    command = read_command(folder) if started else []
    advice = f"type the command of the sweep again with run_dir={runs.display_path(folder)}"
    content = read_json(file, advice)
    problem = next(_problems(content), None)
    if problem is not None:
        raise LabError(f"{file} does not contain the jobs of a sweep ({problem}): {advice}")
    if content.get("all_known") is not True:
        raise LabError(
            f"{runs.display_path(folder)} is a search, which chooses later jobs by earlier results. To continue it, "
            f"type its command again (a storage keeps its trials): {repeated_command(folder, command)}"
        )
    return Sweep(folder, command, n_jobs=content.get("n_jobs")), content["jobs"]


def _problems(content: Any) -> Iterator[str]:
    """Yield the problems of jobs.json. Use only the first: each check assumes that the earlier ones passed."""
    rows: Any = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        yield "it has no list of jobs"
    for row in rows:
        yield from _job_problems(row)
    folders = [row["folder"] for row in rows if row["config"] is not None]
    if len(set(folders)) < len(folders):
        yield "two jobs have the same folder"


def _job_problems(row: Any) -> Iterator[str]:
    if not isinstance(row, dict) or not {"job", "overrides", "folder", "config", "reason"} <= row.keys():
        yield "a job is not a mapping, or lacks a key"
    number, overrides, folder, config = (row[key] for key in ("job", "overrides", "folder", "config"))
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        yield "a job number is not an integer ≥ 0"
    group = row.get("group")  # early versions have none
    if group is not None and (not isinstance(group, int) or isinstance(group, bool) or group < 0 or config is None):
        yield f"the group of job {number} is not an integer ≥ 0"
    texts = [row["reason"] or "", *(overrides if isinstance(overrides, list) else [None])]
    if not all(isinstance(text, str) for text in texts):
        yield f"the overrides or the reason of job {number} are not strings"
    if config is None:
        return
    if not isinstance(folder, str) or Path(folder).name != folder or folder in {"", ".."} or "\0" in folder:
        yield f"the folder of job {number} is not in the sweep"
    problem = find_problem(config)
    if problem is not None:
        yield f"job {number}: {problem}"


def _read_from_runs(folder: Path) -> tuple[Sweep, list[dict[str, Any]]]:
    """Return what `_read` returns, from the runs of the sweep instead of jobs.json. Each job must have a run."""
    command, rows = read_command(folder), read_summary_rows(folder, ended=True)
    run_folders = [folder / (row.get("folder") or "") for row in rows]
    started = [path.parent == folder and RunFolder(path).config.is_file() for path in run_folders]
    if not all(started):
        raise LabError(
            f"{started.count(False)} of {len(rows)} jobs never started, and {runs.display_path(folder)} does not "
            "contain their configurations. To complete the sweep, type its command again: "
            f"{repeated_command(folder, command)}"
        )
    n_jobs = dict(part.partition("=")[::2] for part in command).get("hydra.launcher.n_jobs", "")
    configs = [RunFolder(path).read_unchecked_config() for path in run_folders]
    jobs = [row | {"config": config, "reason": None} for row, config in zip(rows, configs, strict=True)]
    return Sweep(folder, command, n_jobs=int(n_jobs) if re.fullmatch(r"-?\d{1,4}", n_jobs) else None), jobs
