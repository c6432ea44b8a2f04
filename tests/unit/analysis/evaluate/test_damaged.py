"""Damaged files of a run folder are reported in one line by everything that reads it."""

import json
import shutil

import pytest
import torch
from PIL import Image

from losslab.analysis.evaluate import evaluation, export, predict
from losslab.analysis.explain import EXPLANATIONS, LandscapeOptions
from losslab.errors import LabError
from losslab.io import atomic
from losslab.runs import RunFolder
from losslab.training.reopen import EvaluationRequest

FEW = LandscapeOptions(points=3, examples=40)


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the run on digits, to be damaged."""
    run = RunFolder(shutil.copytree(runs("digits"), tmp_path / "run"))
    atomic.checksum_path(run.best).unlink()  # further checks of a checkpoint follow a matching checksum
    return run


def readers(folder):
    """Everything that reads a finished run."""
    return {
        "evaluate": lambda: evaluation.evaluate(EvaluationRequest(folder.path)),
        "export": lambda: export.export(EvaluationRequest(folder.path), folder.path / "new.pt2"),
        "predict": lambda: predict.load_classifier(folder.path),
        "explain": lambda: EXPLANATIONS["landscape"].module.explain([folder], folder.path / "new", FEW),
    }


def rejected(folder, message, *only):
    for name, read in readers(folder).items():
        if not only or name in only:
            with pytest.raises(LabError, match=message) as error:
                read()
            assert "\n" not in str(error.value), name


def change(path, *keys, value):
    content = json.loads(path.read_text())
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(content))


def test_a_missing_best_checkpoint_is_not_replaced_by_the_last(copy):
    copy.best.unlink()
    rejected(
        copy,
        r"best.ckpt, the checkpoint of the best epoch \d, is missing: restore it, or use --ckpt last, "
        r"or --ckpt .*weights.pth",
    )
    assert evaluation.evaluate(EvaluationRequest(copy.path, checkpoint="last"))
    assert evaluation.evaluate(EvaluationRequest(copy.path, checkpoint=str(copy.weights)))


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"seed": 0, "loss": {}}'])
def test_an_invalid_configuration_is_rejected(copy, content):
    copy.config.write_text(content)
    rejected(copy, "config.json is not the configuration of a run: it ")


@pytest.mark.parametrize(
    ("key", "target"),
    [("data", "nope.Nope"), ("data", "os.system"), ("loss", "losslab.losses.nope.X"), ("model", "losslab.nope")],
)
def test_an_unknown_target_is_rejected_without_output_of_hydra(copy, key, target, caplog):
    change(copy.config, key, "_target_", value=target)
    rejected(copy, f"config.json: {key}._target_ is {target}, which ")
    with pytest.raises(LabError, match=f"{key}._target_ is {target}"):
        evaluation.evaluate(EvaluationRequest(copy.path, data=("size=8",)))
    assert not caplog.messages


@pytest.mark.parametrize("state", [3, None, {1: 2}, {"network.1.weight": "b"}])
def test_a_checkpoint_without_weights_is_rejected(copy, state):
    torch.save({"state_dict": state}, copy.best)
    rejected(copy, r"best.ckpt contains .*: choose another checkpoint$")


def test_complex_weights_and_invalid_loss_numbers_are_rejected(copy):
    content = torch.load(copy.best, weights_only=True)
    torch.save(content | {"loss_numbers": 3}, copy.best)
    rejected(copy, "best.ckpt contains a int instead of a dict of hyperparameters of the loss")
    content["state_dict"]["network.1.weight"] = content["state_dict"]["network.1.weight"].to(torch.complex64)
    torch.save(content, copy.best)
    rejected(copy, "best.ckpt contains a tensor of torch.complex64 instead of a weight under 'network.1.weight'")


def test_a_file_that_is_not_a_checkpoint_is_rejected_without_advice_to_unpickle_it(copy):
    copy.best.write_bytes(b"no checkpoint")
    rejected(
        copy, r"^((?!weights_only).)*damaged or not a checkpoint .it is not a torch.save file: .*: choose another$"
    )


@pytest.mark.parametrize(
    ("keys", "value", "problem"),
    [
        (("normalise", "std"), [0, 0, 0], "invalid normalise"),
        (("normalise", "mean"), [1], "invalid normalise"),
        (("normalise", "mean"), [1, 2, float("nan")], "invalid normalise"),
        (("class_names",), ["a"], "spec.class_names must be 10 names .*"),
        (("class_counts",), [1], "invalid class_counts"),
        (("targets",), 0, "spec.targets must be an integer, .*"),
        (("targets",), "x", "spec.targets must be an integer, .*"),
        (("input_shape",), "x", "spec.input_shape must be a tuple .*"),
        (("input_shape",), [3, 8], "invalid normalise"),
    ],
)
def test_impossible_metadata_are_rejected_with_the_file_name(copy, keys, value, problem):
    change(copy.metadata, *keys, value=value)
    rejected(copy, rf"data.json is damaged \({problem}\): delete it")


@pytest.mark.parametrize("content", ["[]", "null", "{}", "", "3"])
def test_invalid_metadata_files_are_rejected_with_the_file_name(copy, content):
    copy.metadata.write_text(content)
    rejected(copy, "run/data.json .*: delete it; then the data themselves are read instead$")


def test_non_finite_probabilities_are_rejected(copy, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    classifier = predict.load_classifier(copy.path)
    assert list(predict.classify(classifier, [tmp_path / "black.png"]))
    classifier.forward = lambda pixels: torch.full((len(pixels), 10), torch.nan)
    with pytest.raises(LabError, match=r"the probabilities for .*black.png are NaN or infinite"):
        list(predict.classify(classifier, [tmp_path / "black.png"]))
