"""The commands of the README about a loss of your own, run as they are in a folder outside losslab."""

import re
import shlex

import pytest
from processes import ROOT, VERB, python

SECTION = (ROOT / "README.md").read_text().partition("### Your own loss\n")[2].partition("\n##")[0]
MODULE = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL).group(1)
COMMANDS = re.findall(r"^    ((?:python|losslab) .*)$", SECTION, re.MULTILINE)
YAML = "# Mine.\n_target_: my_losses.Mine\npower: 2.0\n"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_losses.py").write_text(MODULE)
    (folder / "conf" / "loss").mkdir(parents=True)
    (folder / "conf" / "loss" / "mine.yaml").write_text(YAML)
    return folder


def run(folder, command, *more):
    program, *arguments = shlex.split(command)
    arguments = [str(ROOT / "train.py") if argument == "train.py" else argument for argument in arguments]
    return python(*(VERB if program == "losslab" else ()), *arguments, *more, cwd=folder)


def test_the_readme_has_the_three_commands():
    assert [command.split()[:2] for command in COMMANDS] == [
        ["losslab", "check"], ["python", "train.py"], ["python", "train.py"],
    ]  # fmt: skip


def test_check_tests_the_contract(folder):
    done = run(folder, COMMANDS[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"contract    (\d+) of \1 checks passed", done.stdout)
    assert "convex                            no (found by search)" in done.stdout
    assert "nothing" in done.stdout, "the doctor has examined it too"


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_the_loss_trains(folder, command):
    done = run(folder, command, "trainer.max_epochs=2", "logger=none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test" in done.stdout


def test_check_reports_what_is_wrong_with_a_loss(folder):
    beside_others = MODULE.replace("** self.power", "** self.power + outputs.mean()")
    (folder / "broken.py").write_text(beside_others)
    done = run(folder, "losslab check loss=custom loss._target_=broken.Mine")
    assert done.returncode == 1
    assert "FAILED  scores each example by itself" in done.stdout


def test_a_mistyped_path_is_reported_in_one_line(folder):
    done = run(folder, "losslab check loss=custom loss._target_=my_losses.Mien")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Mien" in done.stderr
