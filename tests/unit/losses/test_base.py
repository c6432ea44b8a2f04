"""Any outputs and targets are scored, or rejected with a one-line error. `make soak` tries thousands of them."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from soak.random_tensors import Sample, draw, find_problem

from losslab.errors import LabError
from losslab.losses import MSE, CrossEntropy, Distillation, GaussianNLL

LABELS = torch.tensor([0, 1])


@settings(max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_any_tensors_are_scored_or_rejected_with_a_one_line_error(dice):
    case = draw(dice)
    assert find_problem(case) is None, str(case)


@pytest.mark.parametrize(
    "case",
    [
        Sample("cross_entropy", torch.full((2, 5), torch.nan), LABELS, valid=True),  # not finite
        Sample("mse", torch.zeros(2, 3), torch.zeros(2, 4), valid=True),  # refused
        Sample("mse", torch.zeros(2, 3), torch.zeros(2, 3, device="meta"), valid=False),  # torch's own words
    ],
)
def test_wrong_outputs_and_targets_raise_an_error_with_the_fix(case):
    assert find_problem(case) is not None


@pytest.mark.parametrize(
    ("loss", "outputs", "target", "line"),
    [
        (CrossEntropy(), torch.zeros(2, 5, 4, 4), torch.zeros(2, 5, 4, 4), r"where every pixel is an example, use"),
        (CrossEntropy(), torch.zeros(5), torch.zeros(5), r"outputs must be \(N, C\) with at least one column"),
        (CrossEntropy(), torch.zeros(2, 0), LABELS, r"with at least one column, got \(2, 0\)"),
        (CrossEntropy(), torch.zeros(2, 5, dtype=torch.int64), LABELS, r"got torch.int64: use outputs.float\(\)"),
        (CrossEntropy(), torch.zeros(2, 5, dtype=torch.complex64), LABELS, "must be real numbers such as float32"),
        (CrossEntropy(), torch.zeros(2, 5), [0, 1], "the target must be a tensor, got a list: use torch.as_tensor"),
        (CrossEntropy(), np.zeros((2, 5)), LABELS, "outputs must be a tensor, got a ndarray"),
        (MSE(), torch.zeros(2, 5).to_sparse(), torch.zeros(2, 5), r"use .to_dense\(\)"),
        (MSE(), torch.zeros(()), torch.zeros(()), r"outputs must be \(N, D\)"),
        (GaussianNLL(), torch.zeros(2, 3), torch.zeros(2, 1), "must have 2 columns for each column"),
        (Distillation(), torch.zeros(2, 5), LABELS, "needs 2 outputs for each class: 5 columns are not a multiple"),
    ],
)
def test_objects_that_are_not_dense_tensors_raise_lab_error(loss, outputs, target, line):
    with pytest.raises(LabError, match=line):
        loss(outputs, target)


def test_8_bit_floats_are_converted_to_float32():
    outputs = torch.tensor([[1.0, 2.0, 0.5]]).to(torch.float8_e4m3fn)
    assert CrossEntropy()(outputs, LABELS[:1]) == CrossEntropy()(outputs.float(), LABELS[:1])
