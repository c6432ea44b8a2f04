"""Whatever is wrong with the files of a run folder is said in one line, by everything that reads it."""

import json
import shutil

import pytest
import torch
from PIL import Image

from losslab.errors import LabError
from losslab.evaluation import evaluating, exporting, predicting
from losslab.evaluation.opening import Look
from losslab.explanation import EXPLANATIONS
from losslab.explanation.sight import Sight
from losslab.runs import RunFolder

FEW = Sight(points=3, examples=40)


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the run on digits, to be damaged."""
    return RunFolder(shutil.copytree(runs("digits"), tmp_path / "run"))


def ways(folder):
    """All that is done with a finished run."""
    return {
        "evaluate": lambda: evaluating.evaluate(Look(folder.path)),
        "export": lambda: exporting.export(Look(folder.path), folder.path / "new.pt2"),
        "predict": lambda: predicting.classifier(folder.path),
        "explain": lambda: EXPLANATIONS["landscape"].module.explain([folder], folder.path / "new", FEW),
    }


def refused(folder, message, *among):
    for name, way in ways(folder).items():
        if not among or name in among:
            with pytest.raises(LabError, match=message) as found:
                way()
            assert "\n" not in str(found.value), name


def changed(path, *keys, value):
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))


def test_a_best_checkpoint_that_is_gone_is_not_replaced_by_the_last(copy):
    copy.best.unlink()
    refused(copy, r"best.ckpt, of the best epoch \d, is gone: bring it back, or name --ckpt last, or --ckpt .*weights.pth")
    assert evaluating.evaluate(Look(copy.path, checkpoint="last"))
    assert evaluating.evaluate(Look(copy.path, checkpoint=str(copy.weights)))


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"seed": 0, "loss": {}}'])
def test_what_is_no_configuration_is_refused(copy, content):
    copy.config.write_text(content)
    refused(copy, "config.json is no configuration of a run: it ")


@pytest.mark.parametrize(
    ("key", "target"),
    [("data", "nope.Nope"), ("data", "os.system"), ("loss", "losslab.losses.nope.X"), ("model", "losslab.nope")],
)
def test_what_nobody_knows_is_refused_without_hydras_lines(copy, key, target, caplog):
    changed(copy.config, key, "_target_", value=target)
    refused(copy, f"{key}: |losslab has no nope", "evaluate", "export", "explain")
    with pytest.raises(LabError, match=f"{key}: |losslab has no nope"):
        evaluating.evaluate(Look(copy.path, data=("size=8",)))
    assert not caplog.messages
