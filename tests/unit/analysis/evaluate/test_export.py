"""Exported programs: they need only torch, and give the outputs of the run."""

import json

import pytest
import torch
from torch import nn

from losslab.analysis.evaluate import export
from losslab.errors import LabError
from losslab.training.reopen import EvaluationRequest, reopen


def test_pixels_go_in_and_probabilities_come_out_for_any_batch_size(runs, tmp_path):
    made = export.export(EvaluationRequest(runs("digits")), tmp_path / "program.pt2")
    extra = {"losslab.json": ""}
    program = torch.export.load(made.path, extra_files=extra).module()
    experiment = reopen(EvaluationRequest(runs("digits")))
    experiment.data.setup()
    images = experiment.data.splits["val"].inputs[:11]
    with torch.no_grad():
        expected = experiment.learner(experiment.data.transform(images)).softmax(1)
        for count in (1, 2, 11):
            outputs = program(images[:count].permute(0, 3, 1, 2))
            assert torch.allclose(outputs, expected[:count], atol=1e-6)
    assert json.loads(extra["losslab.json"])["class_names"] == [str(digit) for digit in range(10)]
    assert made.inputs.startswith("uint8 (N, 3, 8, 8)")
    assert made.difference < 1e-6


@pytest.mark.parametrize("name", ["values", "labels", "exact"])
def test_regression_multilabel_and_float64_networks_are_exported(name, runs, tmp_path):
    made = export.export(EvaluationRequest(runs(name), trusted=("labelled",)), tmp_path / "program.pt2")
    assert made.difference < (1e-12 if name == "exact" else 1e-6)
    with pytest.raises(LabError, match=r"already exists: name another file with --output"):
        export.export(EvaluationRequest(runs(name), trusted=("labelled",)), tmp_path / "program.pt2")


def test_raw_outputs_can_be_exported(runs, tmp_path):
    made = export.export(EvaluationRequest(runs("values")), tmp_path / "program.pt2", raw=True)
    assert torch.export.load(made.path).module()(torch.zeros(3, 10)).shape == (3, 2)  # means and variances
    assert made.outputs == "the network's raw outputs"


def test_a_program_with_other_outputs_is_not_written(runs, tmp_path, monkeypatch):
    plain = export.Program.forward
    monkeypatch.setattr(export.Program, "forward", lambda self, inputs: plain(self, inputs) * 1.01)
    with pytest.raises(LabError, match="the exported program differs from the model by up to"):
        export.export(EvaluationRequest(runs("values")), tmp_path / "program.pt2")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_traced_is_reported_in_one_line(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Flatten, "forward", lambda _, x: x if float(x.sum()) > 0 else x + 0)
    with pytest.raises(LabError, match=r"torch\.export cannot trace this network") as error:
        export.export(EvaluationRequest(runs("values")), tmp_path / "program.pt2")
    assert "\n" not in str(error.value)
