"""The code blocks of docs/tutorials.md print the output that the page shows, and its commands work."""

import contextlib
import io
import json
import re
import shlex
import warnings
from decimal import Decimal
from pathlib import Path

import pytest
from processes import VERB, python

from losslab.training.config import compose
from losslab.training.experiment import build, run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorials.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
MISTAKES = [part for part in re.split(r"^##+ ", PAGE, flags=re.MULTILINE) if part.startswith("Mistake: ")]
BLOCK = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?%?")
COMMANDS = [shlex.split(line) for line in re.findall(r"^    ((?:python|losslab) .*)$", PAGE, re.MULTILINE)]
TRAINING = [arguments[1:] for program, *arguments in COMMANDS if program == "python"]
ACCURACY = Decimal(3)  # percentage points: the accuracy of small networks depends on the machine


def printed(code, names):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about some of the mistakes
        exec(compile(code, "docs/tutorials.md", "exec"), names)  # noqa: S102
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def agree(said, found):
    """Whether two texts have the same words and numbers; numbers may differ by one unit in the last digit of `said`."""
    if NUMBER.sub("#", said).split() != NUMBER.sub("#", found).split():
        return False
    return all(near(*pair) for pair in zip(NUMBER.findall(said), NUMBER.findall(found), strict=True))


def near(said, found):
    unit = Decimal(10) ** Decimal(said.rstrip("%")).as_tuple().exponent
    apart = abs(Decimal(said.rstrip("%")) - Decimal(found.rstrip("%")))
    return apart <= (ACCURACY if said.endswith("%") else unit)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_code_block_prints_the_output_below_it(name):
    names = {}
    for code, said in BLOCK.findall(SECTIONS[name]):
        found = printed(code, names)
        assert agree(said.rstrip(), found), f"{code}\nsays:\n{said}\nprints:\n{found}"


def test_every_code_block_has_an_output():
    assert len(BLOCK.findall(PAGE)) == PAGE.count("```python") == PAGE.count("```text")


def test_a_wrong_number_or_word_in_an_output_is_detected():
    assert agree("loss 0.6667, at 1.7e-17", "loss  0.6668, at 1.8e-17")
    assert not agree("loss 0.6667", "loss 0.6669")
    assert not agree("loss 0.6667", "cost 0.6667")
    assert not agree("left 9.0%", "left 12.1%")
    assert not agree("1 2", "1")


@pytest.mark.parametrize(
    "words",
    [
        "training on the test split",
        "never stepping",
        "averaging the batch means",
        "taking a zero gradient for the optimum",
        "the smaller loss is the better one",
    ],
)
def test_the_common_mistakes_are_explained(words):
    assert any(words in mistake.partition("\n")[0] for mistake in MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.partition("\n")[0])
def test_the_output_shows_the_mistake(mistake):
    assert BLOCK.search(mistake)


def test_links_point_to_headings():
    headings = {re.sub(r"[^a-z -]", "", name.lower()).replace(" ", "-") for name in SECTIONS}
    assert set(re.findall(r"\]\(#(.*?)\)", PAGE)) == headings


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_a_training_command_composes(arguments, tmp_path):
    one = [re.sub(r"(=[^,]*),.*", r"\1", argument) for argument in arguments if argument != "-m"]
    config = compose(one, run_dir=str(tmp_path))
    assert build(config | {"callbacks": {}, "logger": {}}).learner


def trained(arguments, folder):
    config = compose([*arguments, "trainer=cpu", "callbacks=none", "logger=none"], run_dir=str(folder))
    return run(build(config))


def test_metrics_do_not_depend_on_the_evaluation_batch_size(tmp_path):
    pair = [command for command in TRAINING if any("eval_batch_size" in argument for argument in command)]
    one, other = (trained(command, tmp_path / str(number)) for number, command in enumerate(pair))
    assert one.keys() == other.keys()
    assert one == pytest.approx(other, rel=1e-6)


def test_gradient_clipping_changes_the_run(tmp_path):
    (clipped,) = [command for command in TRAINING if command[-1].startswith("trainer.gradient_clip_val=")]
    short, free = trained(clipped, tmp_path / "clipped"), trained(clipped[:-1], tmp_path / "free")
    assert short["test/mse"] > 1.1 * free["test/mse"], "shorter steps get less far in two epochs"


def losslab(folder, *arguments):
    return python(*VERB, *arguments, cwd=folder)


@pytest.mark.slow
def test_a_too_high_learning_rate_is_reported_before_the_first_step(tmp_path):
    (command,) = [command for command in COMMANDS if command[:2] == ["losslab", "check"]]
    assert "learning-rate-too-high" in losslab(tmp_path, *command[1:]).stdout


@pytest.mark.slow
def test_a_finished_run_is_evaluated_from_its_folder(tmp_path):
    (command,) = [command for command in TRAINING if "loss=kl_div" in command]
    assert losslab(tmp_path, "train", *command, "run_dir=run").returncode == 0
    done = losslab(tmp_path, "evaluate", "run")
    accuracy = json.loads((tmp_path / "run" / "metrics.json").read_text())["test/accuracy"]
    assert re.search(rf"accuracy .*{accuracy:.4f}", done.stdout), done.stdout + done.stderr
    assert re.search(r"precision +recall +f1-score +support", done.stdout)
    assert (tmp_path / "run" / "evaluation" / "test" / "confusion.png").is_file()
