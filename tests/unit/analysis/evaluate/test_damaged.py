"""Whatever is wrong with the files of a run folder is said in one line, by everything that reads it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from losslab.analysis.evaluate import evaluation, export, predict
from losslab.analysis.explain import EXPLANATIONS
from losslab.analysis.explain.options import Sight
from losslab.errors import LabError
from losslab.io import atomic
from losslab.runs import RunFolder
from losslab.training.reopen import EvaluationRequest

FEW = Sight(points=3, examples=40)


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the run on digits, to be damaged."""
    run = RunFolder(shutil.copytree(runs("digits"), tmp_path / "run"))
    atomic.checksum_path(run.best).unlink()  # what else is wrong with a checkpoint is looked for only where it fits
    return run


def ways(folder):
    """All that is done with a finished run."""
    return {
        "evaluate": lambda: evaluation.evaluate(EvaluationRequest(folder.path)),
        "export": lambda: export.export(EvaluationRequest(folder.path), folder.path / "new.pt2"),
        "predict": lambda: predict.classifier(folder.path),
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
    refused(
        copy, r"best.ckpt, of the best epoch \d, is gone: bring it back, or name --ckpt last, or --ckpt .*weights.pth"
    )
    assert evaluation.evaluate(EvaluationRequest(copy.path, checkpoint="last"))
    assert evaluation.evaluate(EvaluationRequest(copy.path, checkpoint=str(copy.weights)))


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
    refused(copy, f"config.json: {key}._target_ names {target}, which ")
    with pytest.raises(LabError, match=f"{key}._target_ names {target}"):
        evaluation.evaluate(EvaluationRequest(copy.path, data=("size=8",)))
    assert not caplog.messages


@pytest.mark.parametrize("state", [3, None, {1: 2}, {"network.1.weight": "b"}])
def test_a_checkpoint_without_weights_is_refused(copy, state):
    torch.save({"state_dict": state}, copy.best)
    refused(copy, r"best.ckpt holds .*: name another checkpoint$")


def test_complex_weights_and_numbers_that_are_none_are_refused(copy):
    content = torch.load(copy.best, weights_only=True)
    torch.save(content | {"loss_numbers": 3}, copy.best)
    refused(copy, "best.ckpt holds no numbers of the loss by name but a int")
    content["state_dict"]["network.1.weight"] = content["state_dict"]["network.1.weight"].to(torch.complex64)
    torch.save(content, copy.best)
    refused(copy, "best.ckpt holds a tensor of torch.complex64 under 'network.1.weight'")


def test_of_a_file_that_is_no_checkpoint_nobody_is_told_to_run_it(copy):
    copy.best.write_bytes(b"no checkpoint")
    refused(copy, r"^((?!weights_only).)*damaged or no checkpoint .it is no archive of torch.save's: .*: name another$")


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("normalise", "std"), [0, 0, 0], "invalid normalise"),
        (("normalise", "mean"), [1], "invalid normalise"),
        (("normalise", "mean"), [1, 2, float("nan")], "invalid normalise"),
        (("class_names",), ["a"], "invalid class_names"),
        (("class_counts",), [1], "invalid class_counts"),
        (("targets",), 0, "invalid targets or input_shape"),
        (("targets",), "x", "invalid targets or input_shape"),
        (("input_shape",), "x", "invalid targets or input_shape"),
        (("input_shape",), [3, 8], "invalid normalise"),
    ],
)
def test_what_no_data_can_be_is_refused_with_its_file(copy, keys, value, said):
    changed(copy.data, *keys, value=value)
    refused(copy, rf"data.json is damaged \({said}\): delete it")


@pytest.mark.parametrize("content", ["[]", "null", "{}", "", "3"])
def test_what_is_no_knowledge_of_data_is_refused_with_its_file(copy, content):
    copy.data.write_text(content)
    refused(copy, "run/data.json .*: delete it, and the data themselves are read instead$")


def test_images_whose_probabilities_are_not_finite_are_not_classified(copy, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    classifier = predict.classifier(copy.path)
    broken = replace(classifier, program=lambda pixels: torch.full((len(pixels), 10), torch.nan))
    assert list(predict.classify(classifier, [tmp_path / "black.png"]))
    with pytest.raises(LabError, match=r"the probabilities for .*black.png are NaN or infinite"):
        list(predict.classify(broken, [tmp_path / "black.png"]))
