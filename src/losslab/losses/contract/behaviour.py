"""Checks that every loss must pass. The docstring says what must hold; the result describes the failure or is None."""

import math

import torch
from torch import Tensor

from losslab.errors import LabError, message_of
from losslab.losses.base import Loss
from losslab.losses.contract.sample_inputs import CLASSES, n_output_columns, sample_outputs, sample_target
from losslab.targets import Kind, encode

_RTOL = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""For each dtype of the outputs, the relative error that the gradient may have."""


def scores_each_example_by_itself(loss: Loss, kind: Kind) -> str | None:
    """`per_example` returns (N,), and the loss of an example does not depend on the rest of the batch."""
    outputs, target = sample_outputs(loss, 7), sample_target(kind, 7)
    scores = loss.per_example(outputs, target)
    if scores.shape != (7,):
        return f"per_example of 7 examples gives {tuple(scores.shape)}, not (7,)"
    alone = torch.cat([loss.per_example(outputs[i : i + 1], target[i : i + 1]) for i in range(7)])
    return _failure_if_different("an example's loss depends on the others", scores, alone)


def averages_by_weight(loss: Loss, kind: Kind) -> str | None:
    """`forward` is Σ per_example / Σ example_weight."""
    outputs, target = sample_outputs(loss, 7), sample_target(kind, 7)
    expected = loss.per_example(outputs, target).sum() / loss.example_weight(target).double().sum()
    return _failure_if_different("forward is not the weighted mean of per_example", loss(outputs, target), expected)


def is_nan_on_an_empty_batch(loss: Loss, kind: Kind) -> str | None:
    """The mean over an empty batch is NaN, as with torch's losses, and not 0."""
    value = loss(sample_outputs(loss, 0), sample_target(kind, 0))
    return None if value.isnan() else f"an empty batch gives {value.item()}, not NaN"


def has_the_gradient_of_its_value(loss: Loss, kind: Kind) -> str | None:
    """In float64 the gradient is close to finite differences of the value."""
    outputs, target = sample_outputs(loss, 3).requires_grad_(), sample_target(kind, 3)
    try:
        torch.autograd.gradcheck(lambda z: loss(z, target), (outputs,))
    except RuntimeError as error:
        return f"the gradient is not that of the value: {message_of(error, 300)}"
    return None


def is_stable_at_large_outputs(loss: Loss, kind: Kind) -> str | None:
    """In float32, bfloat16 and float16, loss and gradient at outputs of ±17 to ±1e4 are finite and close to float64."""
    card = loss.card
    limit = math.inf if card is None else card.overflows_at
    target = sample_target(kind, 2 * CLASSES, torch.float32)
    columns = n_output_columns(loss, CLASSES)
    # In row k, the outputs of class k are 1 and all others -1.
    signs = torch.eye(CLASSES).mul(2).sub(1).repeat(1, math.ceil(columns / CLASSES))[:, :columns]
    for size in (size for size in (17.0, 20.0, 90.0, 1e4) if size < limit):
        for dtype, rtol in _RTOL.items():
            outputs = (size * torch.cat([signs, -signs])).to(dtype)
            value, gradient = _value_and_gradient(loss, outputs, target)
            exact, exact_gradient = _value_and_gradient(loss, outputs.double(), target)
            where = f"at outputs of ±{size:g} in {dtype}"
            if not (value.isfinite().all() and exact.isfinite().all()):
                return f"the value is not finite {where}: {value[~(value.isfinite() & exact.isfinite())][0].item()}"
            # The gradient has the dtype of the outputs, whose range may be too small for the exact gradient.
            in_range = exact_gradient.abs() < torch.finfo(dtype).max
            if not (gradient.isfinite() | ~in_range).all() or not exact_gradient.isfinite().all():
                return f"the gradient is not finite {where}"
            if (value - exact).abs().gt(1e-3 * exact.abs() + 1e-6).any():
                return f"the value {where} is {value.tolist()}, but {exact.tolist()} in float64"
            if (in_range & (gradient - exact_gradient).abs().gt(rtol * exact_gradient.abs() + 1e-5)).any():
                return f"the gradient {where} differs from that in float64"
    return None


def propagates_nan(loss: Loss, kind: Kind) -> str | None:
    """NaN in the outputs of one example makes only the loss of this example NaN."""
    outputs, target = sample_outputs(loss, 3), sample_target(kind, 3)
    outputs[1] = torch.nan
    scores = loss.per_example(outputs, target)
    if scores.isnan().tolist() == [False, True, False]:
        return None
    return f"if the outputs of the second of 3 examples are NaN, the losses are {scores.tolist()}"


def keeps_its_precision(loss: Loss, kind: Kind) -> str | None:
    """float64 outputs give a float64 loss; float32 and float16 outputs give a float32 loss."""
    target = sample_target(kind, 3)
    for dtype in (torch.float64, torch.float32, torch.float16):
        expected = torch.promote_types(dtype, torch.float32)
        actual = loss.per_example(sample_outputs(loss, 3, torch.float32).to(dtype), target).dtype
        if actual != expected:
            return f"{dtype} outputs give a loss in {actual}, not {expected}"
    return None


def is_the_same_under_autocast(loss: Loss, kind: Kind) -> str | None:
    """torch.autocast does not change the value."""
    outputs, target = sample_outputs(loss, 7, torch.float32), sample_target(kind, 7, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        actual = loss.per_example(outputs, target)
    return _failure_if_different("autocast changes the value", actual, loss.per_example(outputs, target))


def maps_over_examples(loss: Loss, kind: Kind) -> str | None:
    """torch.func.vmap over the examples does not change the value."""
    outputs, target = sample_outputs(loss, 6), sample_target(kind, 6)
    mapped = torch.func.vmap(lambda z, t: loss.per_example(z[None], t[None])[0])(outputs, target)
    return _failure_if_different("torch.func.vmap changes the value", mapped, loss.per_example(outputs, target))


def differentiates_functionally(loss: Loss, kind: Kind) -> str | None:
    """torch.func.grad returns the same gradient as torch.autograd.grad."""
    outputs, target = sample_outputs(loss, 6).requires_grad_(), sample_target(kind, 6)
    (gradient,) = torch.autograd.grad(loss(outputs, target), outputs)
    functional = torch.func.grad(loss)(outputs.detach(), target)
    return _failure_if_different("torch.func.grad differs from torch.autograd.grad", functional, gradient)


def compiles_into_one_graph(loss: Loss, kind: Kind) -> str | None:
    """torch.compile(fullgraph=True) works and does not change the value."""
    torch.compiler.reset()
    outputs, target = sample_outputs(loss, 6), sample_target(kind, 6)
    compiled = torch.compile(loss, fullgraph=True, backend="eager", dynamic=False)
    return _failure_if_different("torch.compile changes the value", compiled(outputs, target), loss(outputs, target))


def takes_one_hot_for_a_class(loss: Loss, kind: Kind) -> str | None:
    """A class index and its one-hot probabilities have the same loss."""
    if kind is not Kind.INDEX or Kind.PROBABILITIES not in loss.wants:
        return None
    outputs, target = sample_outputs(loss, 6), sample_target(Kind.INDEX, 6)
    actual = loss.per_example(outputs, encode(target, Kind.INDEX, Kind.PROBABILITIES, CLASSES, torch.float64))
    failure = "the loss of a one-hot target differs from that of its class index"
    return _failure_if_different(failure, actual, loss.per_example(outputs, target))


def gives_valid_probabilities(loss: Loss, kind: Kind) -> str | None:
    """`to_probabilities` returns values in [0, 1], and the class with the largest prediction has the largest one."""
    if kind is Kind.VALUES:
        return None
    # The first view. Outputs are in (0, 1), because some losses clamp them to this range, which could make two equal.
    outputs = sample_outputs(loss, 20)[:, : loss.outputs(CLASSES)].sigmoid()
    probabilities = loss.to_probabilities(outputs)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        return "to_probabilities returns values outside [0, 1]"
    same = torch.equal(probabilities.argmax(1), loss.to_predictions(outputs).argmax(1))
    return None if same else "the class with the largest probability is not the class with the largest output"


def rejects_shapes_that_would_broadcast(loss: Loss, kind: Kind) -> str | None:
    """Outputs and a target whose shapes differ, but would broadcast, raise LabError."""
    target = sample_target(kind, 3)
    return _failure_if_accepted(loss, target[:, None] if kind is Kind.INDEX else target[:, 0])


def rejects_int32_targets(loss: Loss, kind: Kind) -> str | None:  # noqa: ARG001 -- the signature of a check
    """An int32 target raises LabError: class indices are int64, and other targets are floats."""
    return _failure_if_accepted(loss, torch.zeros(3, dtype=torch.int32))


def accepts_tensor_hyperparameters(loss: Loss, kind: Kind) -> str | None:
    """A hyperparameter may be a tensor, and torch.func.vmap and torch.func.grad work on it."""
    outputs, target = sample_outputs(loss, 4), sample_target(kind, 4)
    for name, declared in loss.hyperparameters.items():
        configured = getattr(loss, name)
        if isinstance(configured, Tensor):
            continue
        values = [value for value in declared.tried if math.isfinite(value)]

        def scored(value: float | Tensor, name: str = name) -> Tensor:
            loss.set_hyperparameter(name, value)
            mean: Tensor = loss(outputs, target)
            return mean

        try:
            single = torch.stack([scored(value) for value in values])
            mapped = torch.func.vmap(scored)(torch.tensor(values, dtype=torch.float64))
            slopes = torch.func.vmap(torch.func.grad(scored))(torch.tensor(values, dtype=torch.float64))
        finally:
            loss.set_hyperparameter(name, configured)
        if (failure := _failure_if_different(f"a tensor for {name} changes the value", mapped, single)) is not None:
            return failure
        if not slopes.isfinite().all():
            return f"the derivative with respect to {name} is not finite: {slopes.tolist()} at {values}"
    return None


def _value_and_gradient(loss: Loss, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = outputs.clone().requires_grad_()
    scores = loss.per_example(leaf, target)
    (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    return scores.detach().double(), gradient.double()


def _failure_if_accepted(loss: Loss, target: Tensor) -> str | None:
    outputs = sample_outputs(loss, 3)
    try:
        loss(outputs, target)
    except LabError:
        return None
    return f"outputs {tuple(outputs.shape)} and a target {tuple(target.shape)} of {target.dtype} are accepted"


def _failure_if_different(failure: str, actual: Tensor, expected: Tensor) -> str | None:
    if torch.allclose(actual.double(), expected.double(), rtol=1e-7, atol=1e-9, equal_nan=True):
        return None
    return f"{failure}: {actual.tolist()}, expected {expected.tolist()}"


FOREIGN_CHECKS = (
    scores_each_example_by_itself,
    averages_by_weight,
    has_the_gradient_of_its_value,
    is_stable_at_large_outputs,
    propagates_nan,
)
"""The checks that criteria of other libraries must pass too."""

CHECKS = (
    *FOREIGN_CHECKS,
    is_nan_on_an_empty_batch,
    keeps_its_precision,
    is_the_same_under_autocast,
    maps_over_examples,
    differentiates_functionally,
    compiles_into_one_graph,
    takes_one_hot_for_a_class,
    gives_valid_probabilities,
    rejects_shapes_that_would_broadcast,
    rejects_int32_targets,
    accepts_tensor_hyperparameters,
)
