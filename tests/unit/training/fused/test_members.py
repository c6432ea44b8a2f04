"""The folder of a fused member is that of an ordinary run, and a group is cut so that it fits into the memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fused_runs import DOUBLE, configuration, train_alone, train_fused
from quick import sample

from losslab.cli.main import main
from losslab.runs import RunFolder
from losslab.runs.config import identity
from losslab.training.experiment import evaluate, rebuild
from losslab.training.fused import FusedMember
from losslab.training.fused import members as fused_members
from losslab.training.fused.members import BuiltGroup, build_group, bytes_of_member, partition
from losslab.training.weights import load

DIGITS = ["model=mlp", "model.hidden=[8]", "data=digits", "data.size=8", "data.batch_size=400", "loss=cross_entropy",
          "trainer.max_epochs=2", DOUBLE]  # fmt: skip

COUNTING_LOSS = """
import torch
from losslab.losses.cross_entropy import CrossEntropy

class Counting(CrossEntropy):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def score(self, outputs, target):
        self.calls += 1
        return super().score(outputs, target) * self.calls
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the fused runs 0 and 1, and run 0 alone as `alone`."""
    folder = tmp_path_factory.mktemp("fused")
    train_fused(folder, [["seed=0"], ["seed=1", "loss=focal"]], *DIGITS)
    assert train_alone(configuration(folder / "alone", *DIGITS, "seed=0")) is None
    return folder


def build_members(folder: Path, members: list[list[str]], *common: str) -> BuiltGroup:
    configs = [configuration(folder / str(index), *common, *own) for index, own in enumerate(members)]
    return build_group(
        [FusedMember(index, config, finished=False, resumes=False) for index, config in enumerate(configs)]
    )


def test_a_member_is_evaluated_like_a_run_and_gives_the_metrics_it_was_written_with(trained):
    folder = RunFolder(trained / "1")
    config = folder.read_config()
    assert config["made_with"]["fused"] == 2
    experiment = rebuild(folder, config)
    load(experiment.learner, folder.best)
    written = json.loads(folder.metrics.read_text())
    for name, value in evaluate(experiment, "test").items():
        assert value == pytest.approx(written[name], rel=1e-12), name


def test_the_identity_of_a_run_does_not_depend_on_whether_it_was_fused(trained):
    fused, alone = (RunFolder(trained / name).read_config() for name in ("0", "alone"))
    assert identity(fused) == identity(alone)


@pytest.mark.parametrize(
    "command",
    sample(
        ["evaluate 0", "compare 0 1", "compare 0 alone", "export 1", "explain 0 1 --points 5 --examples 100"],
        "compare 0 alone",
    ),
)
def test_a_command_reads_a_member_like_a_run(trained, monkeypatch, caplog, command):
    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.chdir(trained)
    monkeypatch.setattr(sys, "argv", ["losslab", *command.split()])
    monkeypatch.setattr("os._exit", end)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0, caplog.text
    assert "fused" not in caplog.text


@pytest.mark.parametrize(("available", "parts"), [(1 << 40, [5]), (5, [2, 2, 1]), (0, [1, 1, 1, 1, 1])])
def test_a_group_is_cut_so_that_its_parts_fit_into_half_of_the_memory(tmp_path, monkeypatch, available, parts):
    group = build_members(tmp_path, [[f"seed={seed}"] for seed in range(5)], *DIGITS)
    needed = bytes_of_member(group.members[0], group)
    monkeypatch.setattr(fused_members, "available_memory", lambda: available if available > 5 else available * needed)
    found, alone = partition(group, 100)
    assert [len(part) for part in found] == parts
    assert alone == {}


def test_a_loss_whose_buffer_changes_cannot_be_fused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "counting_loss.py").write_text(COUNTING_LOSS)
    group = build_members(
        tmp_path, [["seed=0"], ["seed=1"]], *DIGITS, "loss=custom", "loss._target_=counting_loss.Counting"
    )
    assert partition(group, 100) == ([], dict.fromkeys((0, 1), "the loss has a buffer that changes during training"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the largest memory")
@pytest.mark.parametrize(
    ("model", "count"),
    [(["model=mlp", "model.hidden=[256,256]"], 8), (["model=cifar_cnn", "data.size=16"], 4)],
    ids=["mlp", "cnn"],
)
def test_the_estimate_is_an_upper_bound_of_the_memory_that_is_used(tmp_path, model, count):
    common = [*DIGITS[2:], "data.batch_size=64", "data.eval_batch_size=100", "trainer.max_epochs=1", *model,
              "trainer.precision=32-true"]  # fmt: skip
    group = build_members(tmp_path / "built", [["seed=0"]], *common)
    estimate = bytes_of_member(group.members[0], group) * (count - 1)
    used = _additional_memory(tmp_path, count, common)
    assert 0.1 * estimate < used < estimate, used / estimate


def _additional_memory(folder: Path, size: int, common: list[str]) -> int:
    """Return by how much the largest memory of a process grows if it trains `size` members after 1, in bytes."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3] / 'helpers')!r})\n"
        "import torch; from pathlib import Path; from fused_runs import train_fused\n"
        "torch.set_num_threads(1)\n"
        "folder, largest, *common = sys.argv[1:]\n"
        "for size in (1, int(largest)):\n"
        "    results = train_fused(Path(folder) / str(size), [[f'seed={seed}'] for seed in range(size)], *common)\n"
        "    assert all(each.reason is None for each in results.values())\n"
        # Not ru_maxrss, which starts with the memory of the parent process.
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))"
    )
    command = [sys.executable, "-c", program, str(folder), str(size), *common]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    first, last = (int(line) for line in ended.stdout.splitlines() if line.isdecimal())  # without the log
    return (last - first) << 10
