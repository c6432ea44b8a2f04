from pathlib import Path

import pytest

from losslab.data import machine

VERSION_2 = ("0::/job/step\n", "", "memory.max", "memory.current", "inactive_file")
VERSION_1 = (
    "4:memory:/job/step\n0::/\n", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)  # fmt: skip


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2], ids=["1", "2"])
def test_each_enclosing_control_group_limits_memory(tmp_path, version):
    own, top, limit, usage, inactive = version
    (tmp_path / "cgroup").write_text(own)
    for group, most in (("job", "1000"), ("job/step", "max")):
        folder: Path = tmp_path / top / group
        folder.mkdir(parents=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / usage).write_text("700\n")
        (folder / "memory.stat").write_text(f"anon 600\n{inactive} 50\n")
    assert machine._control_group_memory(tmp_path, tmp_path / "cgroup") == [350]


def test_without_control_groups_available_memory_is_that_of_the_machine(tmp_path):
    assert machine._control_group_memory(tmp_path, tmp_path / "nothing") == []
    assert machine.available_memory() > 0


def test_ranks_and_jobs_divide_memory_and_cores(monkeypatch):
    monkeypatch.setattr(machine, "_machine", lambda: 1200)
    monkeypatch.setattr(machine, "_control_group_memory", list)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert machine.available_memory() == 300
    monkeypatch.setenv("LOSSLAB_JOBS", "3")  # as a sweep says to jobs that run side by side
    assert machine.available_memory() == 100
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "100000")
    assert machine.cores() == 1
