"""Texts from an untrusted folder start no new lines and do not control the terminal."""

import csv
import io
import json
import subprocess
import sys

import pytest
from folders import config, run
from rich.console import Console

from losslab.analysis.compare import compare, report, tensorboard
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.runs.sweep_summary import State
from losslab.sweep import display, state

COMMAND = "x\ntouch pwned\n\x1b[2J\u202e"


def lines(text):
    return [line for line in text.splitlines() if line.startswith("touch") or not line.isprintable()]


@pytest.fixture
def two(tmp_path):
    """A folder that contains two runs."""
    for loss in ("a", "b"):
        run(tmp_path / "runs" / loss, loss, metrics={"test/accuracy": 0.5})
    return tmp_path / "runs"


def changed(folder, **values):
    (folder / "config.json").write_text(json.dumps(config("b", 0, str(folder), **values)))


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer__lr": COMMAND},
        {"optimizer__options": {COMMAND: COMMAND}},
        {"mix": {"_target_": COMMAND}},
        {"callbacks__mine": {COMMAND: 1}},
        {f"callbacks__{COMMAND}": {"a": 1}},
        {"loss___target_": COMMAND, "choices__loss": "custom"},
        {"trainer__accelerator": COMMAND},
        {"choices__loss": COMMAND},
    ],
    ids=lambda values: next(iter(values)).encode("unicode_escape").decode(),
)
def test_text_of_a_configuration_starts_no_line_of_the_report(values, two, tmp_path):
    changed(two / "b", **values)
    report.write_report(compare([two]), tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert "touch pwned" in text or "its choices do not map config groups to names" in text
    assert lines(text) == lines((tmp_path / "runs.csv").read_text()) == []


def test_text_of_a_sweep_or_of_metrics_starts_no_line_of_the_report(two, tmp_path):
    rows = [{"job": 7, "overrides": [COMMAND], "folder": None, "state": "failed", "reason": COMMAND}]
    rows.append({"job": 8, "overrides": [], "folder": "a", "state": "done"})
    (two / "summary.json").write_text(json.dumps({"jobs": rows, "command": [COMMAND]}))
    (two / "b" / ".hydra").mkdir()
    (two / "b" / ".hydra" / "overrides.yaml").write_text(json.dumps([COMMAND]))
    (two / "b" / "metrics.json").write_text(json.dumps({f"test/{COMMAND}": 1.0}))
    (two / "a" / "history.csv").write_text("epoch,step,val/accuracy,val/\x1b[2Jloss\n1,1,0.5,1\n")
    report.write_report(compare([two]), tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert "failed: x touch pwned" in text
    assert "is not the name of a value" in text
    assert lines(text) == lines((tmp_path / "runs.csv").read_text()) == []


def test_recorded_commands_start_no_line_of_the_report(two, tmp_path):
    rows = [{"job": 0, "overrides": [], "folder": "a", "state": "done"}]
    (two / "summary.json").write_text(json.dumps({"jobs": rows, "command": [COMMAND, f"a={COMMAND}", "```"]}))
    (two / "b" / ".hydra").mkdir()
    (two / "b" / ".hydra" / "overrides.yaml").write_text(json.dumps([f"b={COMMAND}", "```"]))
    report.write_report(compare([two]), tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert "a=x touch pwned" in text
    assert "b=x touch pwned" in text
    assert lines(text) == []
    assert sum(line.startswith("```") for line in text.splitlines()) == 2


def test_choice_of_several_lines_is_refused(two):
    changed(two / "b", choices__loss=COMMAND)
    with pytest.raises(LabError, match="its choices do not map config groups to names"):
        RunFolder(two / "b").read_unchecked_config()


def test_comparison_replaces_links(two, tmp_path):
    victim, folder = tmp_path / "profile", tmp_path / "out"
    victim.write_text("mine")
    folder.mkdir()
    names = ("comparison.md", "comparison.csv", "runs.csv", "curves.png", "test-accuracy.png")
    for name in names:
        (folder / name).symlink_to(victim)
    comparison = compare([two])
    report.write_report(comparison, folder)
    assert not any((folder / name).is_symlink() for name in names)
    (tmp_path / "there").mkdir()
    (folder / "tensorboard").symlink_to(tmp_path / "there")
    with pytest.raises(LabError, match="tensorboard is a symbolic link"):
        tensorboard.write_events(comparison.ordered, comparison.histories, folder / "tensorboard")
    assert victim.read_text() == "mine"
    assert not [*(tmp_path / "there").iterdir()]


def test_csv_rows_have_equal_lengths_despite_untrusted_text(two, tmp_path):
    report.write_report(compare([two]), tmp_path)
    found = [*csv.reader(io.StringIO((tmp_path / "runs.csv").read_text()))]
    assert len({len(row) for row in found}) == 1


@pytest.mark.parametrize("error", ["LabError", "RuntimeError"])
def test_errors_and_tracebacks_are_printable(error):
    code = (
        "from losslab.cli.process import one_line_errors\nfrom losslab.errors import LabError\n"
        f"with one_line_errors(show_tracebacks=False): raise {error}('a\\x1b[2J\\u202e\\nb')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert r"a\x1b[2J\u202e" in done.stderr
    assert "\x1b" not in done.stderr
    assert (done.stderr.count("\n") == 1) == (error == "LabError")


def test_warning_of_a_library_is_printable():
    code = (
        "import warnings\nfrom losslab.io.terminal import ConsoleHandler\nConsoleHandler()\nimport lightning\n"
        "warnings.warn('a\\x1b[2J')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert r"UserWarning: a\x1b[2J" in done.stderr


def test_view_of_a_sweep_is_printable(tmp_path, monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
    monkeypatch.setattr(display, "get_console", lambda: console)
    made = state.Sweep(tmp_path)
    made.jobs = [state.Job(0, [], label="a\x1b]0;b", state=State.RUNNING)]
    with display.LiveTable(made) as view:
        view.refresh()
        made.jobs[0].state, made.jobs[0].reason = State.FAILED, "c\x1b]0;d"
        view.log_end(made.jobs[0])
    assert "\x1b]" not in console.file.getvalue()
    assert r"a\x1b]0;b" in console.file.getvalue()
    assert r"c\x1b]0;d" in console.file.getvalue()
