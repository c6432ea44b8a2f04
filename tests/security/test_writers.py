"""Commands on an untrusted folder write only into this folder, and escape its texts when they print them."""

import logging
import os
import sys
from types import SimpleNamespace

import pytest

from losslab.analysis.evaluate import export
from losslab.analysis.evaluate import report as evaluation
from losslab.analysis.explain import figures
from losslab.cli import compare
from losslab.cli.process import one_line_errors
from losslab.errors import LabError
from losslab.io.figures import new_figure
from losslab.io.terminal import ConsoleHandler, PrintableFormatter, printable
from losslab.runs import RunFolder

RAW = "a\x1b]0;owned\x07b\x1b[2J\u202ec\r\x9bd"
PLAIN = r"a\x1b]0;owned\x07b\x1b[2J\u202ec\r\x9bd"


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "profile").write_text("mine")
    yield folder
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("profile", "mine")]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("way", ["evaluation", "evaluation/test"])
def test_evaluation_is_not_written_through_a_link(way, run, victim):
    link = run.path / way
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim)
    with pytest.raises(LabError, match=f"{way} is a symbolic link; writing would leave the folder"):
        evaluation.write_evaluation(SimpleNamespace(experiment=SimpleNamespace(folder=run)), run.evaluation("test"))


def test_figures_are_not_written_through_a_link(run, victim):
    run.figures.symlink_to(victim)
    with pytest.raises(LabError, match="figures is a symbolic link"):
        figures.figures_folder([run], None)


def test_figure_replaces_a_link(run, victim):
    run.figures.mkdir()
    drawn = run.figures / "surface.png"
    drawn.symlink_to(victim / "profile")
    figures.save_figure(new_figure(1, 1), "surface", [run], None, [])
    assert not drawn.is_symlink()
    assert drawn.read_bytes().startswith(b"\x89PNG")
    (run.figures / "surface.csv").symlink_to(victim / "profile")
    figures.write_csv(run.figures / "surface.csv", ["a"], [[1.0]])
    assert (run.figures / "surface.csv").read_text() == "a\n1\n"


def test_export_is_not_written_through_a_dangling_link(run, victim, monkeypatch):
    run.exported.symlink_to(victim / "new.pt2")
    monkeypatch.setattr(export, "reopen", lambda _: SimpleNamespace(folder=run))
    with pytest.raises(LabError, match=r"exported\.pt2 already exists"):
        export.export(SimpleNamespace())


@pytest.mark.parametrize("way", ["comparison", "comparison/comparison.md", "comparison/tensorboard"])
def test_comparison_is_not_written_through_a_link(way, run, victim):
    (run.path / way).parent.mkdir(exist_ok=True)
    if way != "comparison":
        (run.path / "comparison" / "runs.csv").touch()
    (run.path / way).symlink_to(victim / "profile" if way.endswith(".md") else victim)
    with pytest.raises(LabError, match=f"{way} is a symbolic link"):
        compare._make_folder(None, SimpleNamespace(collection=SimpleNamespace(sweep=run.path)))


def test_control_characters_are_escaped():
    assert printable(RAW) == PLAIN
    assert printable("ä→😀\tand\nso on") == "ä→😀\tand\nso on"


def test_log_and_terminal_are_printable(capsys):
    record = logging.LogRecord("losslab", logging.INFO, "", 0, RAW, None, None)
    assert PrintableFormatter("%(message)s").format(record) == PLAIN
    ConsoleHandler().emit(record)
    assert capsys.readouterr().out == f"{PLAIN}\n"


def test_error_message_is_printable(capfd, monkeypatch):
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit), one_line_errors(show_tracebacks=False):
        raise LabError(RAW)
    assert capfd.readouterr().err == f"{PLAIN}\n"
