"""The command `losslab`: verbs, old commands and completion."""

import sys
import tomllib
from pathlib import Path

import pytest

from losslab.cli import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(monkeypatch):
    """A function that runs a command line, and returns each verb that runs with its sys.argv."""

    def run(*argv, entry=main.main):
        ran = []
        monkeypatch.setattr(sys, "argv", [*argv])
        monkeypatch.setattr(main, "_run", lambda verb: ran.append((verb, sys.argv)))
        entry()
        return ran

    return run


@pytest.mark.parametrize("verb", main.VERBS)
def test_a_verb_gets_its_arguments_and_is_named_in_usage_lines(verb, run):
    named = [(verb, [f"losslab {verb}", "a", "--b"])]
    assert run("/somewhere/bin/losslab", verb, "a", "--b") == named
    assert run("/somewhere/losslab/cli/__main__.py", verb, "a", "--b") == named


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_verbs(argv, run, capsys):
    assert run("losslab", *argv) == []
    out = capsys.readouterr().out
    assert all(f"  {verb}" in out for verb in main.VERBS)


def test_an_unknown_verb_is_refused(run):
    with pytest.raises(SystemExit, match="there is no verb 'evaluat': choose one of train, check"):
        run("losslab", "evaluat")


def test_an_old_command_runs_its_verb_and_names_the_new_one(run, capsys):
    assert run("/bin/losslab-evaluate", "run", entry=main.old_command) == [("evaluate", ["losslab evaluate", "run"])]
    assert capsys.readouterr().err == "losslab-evaluate is now `losslab evaluate`\n"


def test_every_verb_has_its_old_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.pop("losslab") == "losslab.cli.main:main"
    assert scripts == {f"losslab-{verb}": "losslab.cli.main:old_command" for verb in main.VERBS if verb != "study"}


def test_completion_can_be_installed_with_and_without_a_verb(run):
    expected = [("train", ["losslab", "-sc", "install=bash"])]
    assert run("/bin/losslab", "train", "-sc", "install=bash") == expected
    assert run("/bin/losslab", "-sc", "install=bash") == expected


@pytest.mark.parametrize("line", ["losslab ", "losslab ev"])
def test_shell_completion_offers_the_verbs(line, run, capsys, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    assert run("losslab", "-sc", "query=bash") == []
    assert capsys.readouterr().out.split() == [*main.VERBS]


def test_overrides_after_a_verb_are_completed_by_hydra(run, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "losslab check model=mlp loss=")
    assert run("losslab", "-sc", "query=bash") == [("train", ["losslab", "-sc", "query=bash"])]
    assert main.os.environ["COMP_LINE"] == "losslab model=mlp loss="


def test_arguments_of_other_verbs_are_left_to_the_shell(run, capsys, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "losslab evaluate outputs/")
    assert run("losslab", "-sc", "query=bash") == []
    assert not capsys.readouterr().out
