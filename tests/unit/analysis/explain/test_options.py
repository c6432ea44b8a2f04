"""Options of the explanations of networks are validated before a run is opened."""

from pathlib import Path

import pytest

from losslab.analysis.explain import EXPLANATIONS, LandscapeOptions
from losslab.cli.explain import _parser
from losslab.errors import LabError


@pytest.mark.parametrize(
    "options",
    [
        *({"points": value} for value in (1, 0, -3, 1002, 10**30, 2.5, "x", True)),
        *({"examples": value} for value in (0, 1, -1, None)),
        *({"seed": value} for value in (-1, 10**30, 2**63, 1.0)),
        {"split": "nope"},
        {"ckpt": "nope"},
    ],
    ids=str,
)
def test_invalid_values_are_rejected(options):
    with pytest.raises(LabError, match=rf"^{next(iter(options))} must be .* got .*$"):
        LandscapeOptions(**options)


def test_largest_and_smallest_allowed_options_are_valid():
    assert LandscapeOptions(points=1001, examples=2, seed=2**63 - 1).split == "train"


@pytest.mark.parametrize("typed", ["1", "x", "1002", "1.5", "", str(10**30), "-3", "٣x", "9" * 5000])
def test_the_command_line_rejects_invalid_numbers_in_words(typed, capsys):
    with pytest.raises(SystemExit, match="2"):
        _parser().parse_args(["run", f"--points={typed}"])
    stderr = capsys.readouterr().err
    assert "argument --points: points must be an integer from 2 to 1001" in stderr or "digits" in stderr
    assert "_number" not in stderr


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_an_empty_list_of_runs_is_rejected(name):
    with pytest.raises(LabError, match=r"name (a run|two or more)"):
        EXPLANATIONS[name].module.explain([], Path("nowhere"))
