"""The runs that `explain` selects for the folders it is given."""

import folders
import pytest

from losslab.analysis.explain.select_runs import select_runs
from losslab.errors import LabError


def names(*paths):
    return [run.path.name for run in select_runs(paths)]


def test_of_a_sweep_the_first_finished_seed_of_each_configuration_is_selected(tmp_path, caplog):
    caplog.set_level("INFO")
    for loss in ("mse", "l1"):
        for seed in range(3):
            folders.run(tmp_path / f"{loss}-s{seed}", loss, seed, metrics=False if (loss, seed) == ("l1", 0) else None)
    assert names(tmp_path) == ["l1-s1", "mse-s0"]
    assert "2 of 6 runs: the first seed of each configuration" in caplog.text


def test_all_seeds_of_one_configuration_are_selected(tmp_path):
    for seed in range(3):
        folders.run(tmp_path / f"s{seed}", seed=seed)
    assert names(tmp_path) == ["s0", "s1", "s2"]


def test_a_run_is_selected_once_even_if_named_twice(tmp_path):
    first, second = folders.run(tmp_path / "a"), folders.run(tmp_path / "b", "l1")
    assert names(first, second, first, tmp_path) == ["a", "b"]


def test_folders_without_a_finished_run_are_rejected(tmp_path):
    with pytest.raises(LabError, match="no run was found in"):
        select_runs([tmp_path])
    folders.run(tmp_path / "a", metrics=False)
    with pytest.raises(LabError, match="contains no finished run"):
        select_runs([tmp_path])
