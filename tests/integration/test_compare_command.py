"""`losslab compare`."""

import subprocess
import sys
from pathlib import Path

import pytest
from folders import accuracies, run, summary

from losslab.cli import compare as verb
from losslab.cli import process

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-P", "-m", "losslab.cli", "compare", *map(str, arguments)],
        cwd=cwd, check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def compare(monkeypatch, tmp_path):
    """The command in this process → its exit code."""

    def exit_now(code):
        raise SystemExit(code)

    monkeypatch.setattr(process, "exit_now", exit_now)
    monkeypatch.chdir(tmp_path)

    def _compare(*arguments):
        with pytest.raises(SystemExit) as ended:
            verb.compare([*map(str, arguments)])
        return ended.value.code

    return _compare


def test_the_page_of_a_sweep_is_written_into_the_sweep(tmp_path):
    accuracies(tmp_path / "sweep", a={0: 0.1, 1: 0.2, 2: 0.3}, b={0: 0.5, 1: 0.6, 2: 0.71})
    summary(tmp_path / "sweep", {"state": "failed", "reason": "no memory", "overrides": ["loss=c", "seed=0"]})
    done = command("sweep", "--baseline", "loss=a", "--reach", "val/accuracy=0.7", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "b 3 0.60 ± 0.26 +0.403 ± 0.025 better" in " ".join(done.stdout.split())
    assert "Time to reach val/accuracy=0.7" in done.stdout
    assert "! not counted: sweep: job 0 (loss=c seed=0): failed: no memory" in done.stdout
    assert (tmp_path / "sweep" / "comparison" / "test-accuracy.png").is_file()
    typed = "losslab compare sweep --baseline loss=a --reach val/accuracy=0.7"
    assert f"\n{typed}\n```\n" in (tmp_path / "sweep" / "comparison" / "comparison.md").read_text()


def test_a_comparison_with_runs_outside_of_the_sweep_is_not_written_into_the_sweep(compare, tmp_path):
    accuracies(tmp_path / "outputs" / "sweep", a={0: 0.1, 1: 0.2}, b={0: 0.5, 1: 0.6})
    summary(tmp_path / "outputs" / "sweep")
    accuracies(tmp_path / "outputs" / "alone", c={0: 0.3})
    assert compare("outputs") == 0
    assert not (tmp_path / "outputs" / "sweep" / "comparison").exists()
    assert len(list((tmp_path / "outputs").glob("comparison-*/comparison.md"))) == 1


def test_compare_needs_no_torch(tmp_path):
    accuracies(tmp_path / "runs", a={0: 0.1, 1: 0.2}, b={0: 0.5, 1: 0.6})
    code = (
        "import sys; from losslab.cli import compare, process; process.exit_now = print;"
        "compare.compare(['runs', '--tensorboard', '--output', 'out']);"
        "print([name for name in ('torch', 'lightning', 'tensorflow', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "out" / "comparison.md").is_file()
    assert (tmp_path / "out" / "tensorboard" / "loss=a").is_dir()


def test_only_an_earlier_comparison_is_overwritten(compare, tmp_path, capsys):
    accuracies(tmp_path / "runs", a={0: 0.1, 1: 0.2})
    assert [compare("runs", "--output", "out") for _ in range(2)] == [0, 0]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.md").touch()
    assert compare("runs", "--output", "mine") == 1
    assert capsys.readouterr().err == "mine contains files but no comparison.md: set --output to another folder\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["empty"], "no run was found in empty: name run or sweep folders, or a folder above them"),
        (["runs", "--metric", "test/acc"], "there is no metric test/acc; there is test/accuracy"),
        (["runs", "--baseline", "loss=x"], "baseline loss=x matches no group; groups are: loss=a; loss=b"),
        (["runs", "--reach", "val/accuracy=much"], "--reach val/accuracy=much: much is not a number"),
        (["runs", "--reach", "val/accuracy=nan"], "the value to reach in val/accuracy must be a finite number"),
        (["runs", "--reach", "val/accuracy=inf"], "the value to reach in val/accuracy must be a finite number"),
        (["runs", "--baseline", "loss=a", "--baseline", "loss=b"], "baseline loss=a loss=b names loss more than once"),
        (["zero", "--scale", "ratio"], "test/accuracy of loss=c seed=0 is 0, and only values above 0 have ratios"),
        (["unfinished"], "no finished run has a finite metric: there is nothing to compare"),
    ],
)
def test_runs_or_arguments_that_cannot_be_compared_are_reported_in_one_line(compare, tmp_path, capsys, arguments, said):
    accuracies(tmp_path / "runs", a={0: 0.1, 1: 0.2}, b={0: 0.1, 1: 0.2})
    run(tmp_path / "unfinished" / "0", metrics=False)
    accuracies(tmp_path / "zero", c={0: 0.0})
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert compare(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_is_a_file_is_refused(compare, tmp_path, capsys):
    accuracies(tmp_path / "runs", a={0: 0.1, 1: 0.2})
    (tmp_path / "file").write_text("mine")
    assert compare("runs", "--output", "file") == 1
    assert capsys.readouterr().err == "file is a file: name another folder with --output\n"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_single_group_is_shown_without_a_comparison(compare, tmp_path, caplog):
    caplog.set_level("INFO")
    accuracies(tmp_path / "runs", a={0: 0.1, 1: 0.2})
    assert compare("runs", "--output", "out") == 0
    assert "the same configuration: there is nothing to compare them with" in caplog.text
    assert "\n\na has test accuracy 0.15 ± 0.90 (n = 2 seeds).\n" in (tmp_path / "out" / "comparison.md").read_text()
