"""What every loss promises, whatever its formula. Each check says what is broken, or None."""

import math

import torch
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.losses.contract.sample_inputs import CLASSES, n_output_columns, sample_outputs, sample_target
from losslab.targets import Kind, encode

SIZES = (17.0, 20.0, 90.0, 1e4)
HALF_AND_SINGLE = (torch.float32, torch.bfloat16, torch.float16)


def scores_each_example_by_itself(loss: Loss, kind: Kind) -> str | None:
    """(N,), and the same for an example alone as among others."""
    outputs, target = sample_outputs(loss, 7), sample_target(kind, 7)
    scores = loss.per_example(outputs, target)
    if scores.shape != (7,):
        return f"per_example of 7 examples gives {tuple(scores.shape)}, not (7,)"
    alone = torch.cat([loss.per_example(outputs[i : i + 1], target[i : i + 1]) for i in range(7)])
    return _differ("an example's loss depends on the others", scores, alone)


def averages_by_weight(loss: Loss, kind: Kind) -> str | None:
    """`forward` is Σ per_example / Σ example_weight."""
    outputs, target = sample_outputs(loss, 7), sample_target(kind, 7)
    expected = loss.per_example(outputs, target).sum() / loss.example_weight(target).double().sum()
    return _differ("forward is not the weighted mean of per_example", loss(outputs, target), expected)


def is_nan_on_an_empty_batch(loss: Loss, kind: Kind) -> str | None:
    """As torch's own losses are."""
    value = loss(sample_outputs(loss, 0), sample_target(kind, 0))
    return None if value.isnan() else f"an empty batch gives {value.item()}, not NaN"


def has_the_gradient_of_its_value(loss: Loss, kind: Kind) -> str | None:
    """Against finite differences, in float64."""
    outputs, target = sample_outputs(loss, 3).requires_grad_(), sample_target(kind, 3)
    try:
        torch.autograd.gradcheck(lambda z: loss(z, target), (outputs,))
    except RuntimeError as error:
        return "the gradient is not that of the value: " + " ".join(str(error).split())[:300]
    return None


def is_stable_far_out(loss: Loss, kind: Kind) -> str | None:
    """Finite value and gradient at ±17, ±20, ±90 and ±1e4, in three precisions, and equal to float64's."""
    card = loss.card
    limit = math.inf if card is None else card.overflows_at
    target = sample_target(kind, 2 * CLASSES, torch.float32)
    columns = n_output_columns(loss, CLASSES)
    signs = torch.eye(CLASSES).mul(2).sub(1).repeat(1, -(-columns // CLASSES))[:, :columns]
    for size in (size for size in SIZES if size < limit):
        for dtype in HALF_AND_SINGLE:
            given = (size * torch.cat([signs, -signs])).to(dtype)
            value, gradient = _value_and_gradient(loss, given, target)
            exact, exact_gradient = _value_and_gradient(loss, given.double(), target)
            where = f"at outputs of ±{size:g} in {dtype}"
            if not (value.isfinite().all() and exact.isfinite().all()):
                return f"the value is not finite {where}: {value[~(value.isfinite() & exact.isfinite())][0].item()}"
            # The gradient comes back in the precision of the outputs, which may be too coarse to hold the exact one.
            fits = exact_gradient.abs() < torch.finfo(dtype).max
            if not (gradient.isfinite() | ~fits).all() or not exact_gradient.isfinite().all():
                return f"the gradient is not finite {where}"
            if (value - exact).abs().gt(1e-3 * exact.abs() + 1e-6).any():
                return f"the value {where} is {value.tolist()}, and {exact.tolist()} in float64"
            coarse = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}[dtype]
            if (fits & (gradient - exact_gradient).abs().gt(coarse * exact_gradient.abs() + 1e-5)).any():
                return f"the gradient {where} is not float64's"
    return None


def passes_nan_on(loss: Loss, kind: Kind) -> str | None:
    """NaN in one example's outputs gives NaN for it, and for it alone."""
    outputs, target = sample_outputs(loss, 3), sample_target(kind, 3)
    outputs[1] = torch.nan
    found = loss.per_example(outputs, target).isnan().tolist()
    return None if found == [False, True, False] else f"NaN in example 1 of 0..2 gives NaN at {found}"


def keeps_its_precision(loss: Loss, kind: Kind) -> str | None:
    """float64 stays, half precision is raised to float32."""
    target = sample_target(kind, 3)
    for given in (torch.float64, torch.float32, torch.float16):
        computed = torch.promote_types(given, torch.float32)
        found = loss.per_example(sample_outputs(loss, 3, torch.float32).to(given), target).dtype
        if found != computed:
            return f"{given} outputs give a loss in {found}, not {computed}"
    return None


def is_the_same_under_autocast(loss: Loss, kind: Kind) -> str | None:
    """Nothing in it is computed in half precision, whatever the network is."""
    outputs, target = sample_outputs(loss, 7, torch.float32), sample_target(kind, 7, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss.per_example(outputs, target)
    return _differ("autocast changes the value", found, loss.per_example(outputs, target))


def maps_over_examples(loss: Loss, kind: Kind) -> str | None:
    """The same under torch.func.vmap."""
    outputs, target = sample_outputs(loss, 6), sample_target(kind, 6)
    mapped = torch.func.vmap(lambda z, t: loss.per_example(z[None], t[None])[0])(outputs, target)
    return _differ("torch.func.vmap changes the value", mapped, loss.per_example(outputs, target))


def differentiates_functionally(loss: Loss, kind: Kind) -> str | None:
    """The same gradient by torch.func.grad."""
    outputs, target = sample_outputs(loss, 6).requires_grad_(), sample_target(kind, 6)
    loss(outputs, target).backward()
    assert outputs.grad is not None  # noqa: S101 -- for the type checker
    return _differ(
        "torch.func.grad differs from backward", torch.func.grad(loss)(outputs.detach(), target), outputs.grad
    )


def compiles_into_one_graph(loss: Loss, kind: Kind) -> str | None:
    """torch.compile(fullgraph=True) changes nothing."""
    torch.compiler.reset()
    outputs, target = sample_outputs(loss, 6), sample_target(kind, 6)
    compiled = torch.compile(loss, fullgraph=True, backend="eager", dynamic=False)
    return _differ("torch.compile changes the value", compiled(outputs, target), loss(outputs, target))


def takes_one_hot_for_a_class(loss: Loss, kind: Kind) -> str | None:
    """A class index and its one-hot probabilities cost the same."""
    if kind is not Kind.INDEX or Kind.PROBABILITIES not in loss.wants:
        return None
    outputs, target = sample_outputs(loss, 6), sample_target(Kind.INDEX, 6)
    soft = encode(target, Kind.INDEX, Kind.PROBABILITIES, CLASSES, torch.float64)
    if getattr(loss, "weight", None) is not None:
        return None  # torch's mean then divides by other weights
    found = loss.per_example(outputs, soft)
    return _differ("a one-hot target does not cost what its index does", found, loss.per_example(outputs, target))


def means_probabilities(loss: Loss, kind: Kind) -> str | None:
    """What the outputs stand for lies between 0 and 1, and keeps their order."""
    if kind is Kind.VALUES:
        return None
    outputs = sample_outputs(loss, 20)[:, : loss.outputs(CLASSES)].sigmoid()
    probabilities = loss.to_probabilities(outputs)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        return "to_probabilities leaves [0, 1]"
    same = torch.equal(probabilities.argmax(1), loss.to_predictions(outputs).argmax(1))
    return None if same else "the most probable class is not that of the largest output"


def refuses_shapes_that_would_broadcast(loss: Loss, kind: Kind) -> str | None:
    """In a LabError, before anything is computed."""
    target = sample_target(kind, 3)
    wrong = target[:, None] if kind is Kind.INDEX else target[:, 0]
    try:
        loss(sample_outputs(loss, 3), wrong)
    except LabError:
        return None
    return f"outputs {tuple(sample_outputs(loss, 3).shape)} and a target {tuple(wrong.shape)} are not refused"


def refuses_integers_of_another_kind(loss: Loss, kind: Kind) -> str | None:
    """int32, which is neither an index nor a float."""
    try:
        loss(sample_outputs(loss, 3), torch.zeros(3, dtype=torch.int32))
    except LabError:
        return None
    return f"an int32 target is not refused where {kind} is wanted"


def takes_tensors_for_parameters(loss: Loss, kind: Kind) -> str | None:
    """A parameter may be a tensor, be mapped over, and be differentiated."""
    outputs, target = sample_outputs(loss, 4), sample_target(kind, 4)
    for name, declared in loss.hyperparameters.items():
        before = getattr(loss, name)
        if isinstance(before, Tensor):
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
            loss.set_hyperparameter(name, before)
        if (wrong := _differ(f"a tensor for {name} changes the value", mapped, single)) is not None:
            return wrong
        if not slopes.isfinite().all():
            return f"the derivative by {name} is not finite: {slopes.tolist()} at {values}"
    return None


def _value_and_gradient(loss: Loss, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = outputs.clone().requires_grad_()
    scores = loss.per_example(leaf, target)
    scores.sum().backward()
    assert leaf.grad is not None  # noqa: S101 -- for the type checker
    return scores.detach().double(), leaf.grad.double()


def _differ(claim: str, found: Tensor, expected: Tensor) -> str | None:
    if torch.allclose(found.double(), expected.double(), rtol=1e-7, atol=1e-9, equal_nan=True):
        return None
    return f"{claim}: {found.tolist()} against {expected.tolist()}"


FOREIGN_CHECKS = (
    scores_each_example_by_itself,
    averages_by_weight,
    has_the_gradient_of_its_value,
    is_stable_far_out,
    passes_nan_on,
)
"""What may be asked of a criterion that knows nothing of this contract."""

CHECKS = (
    scores_each_example_by_itself,
    averages_by_weight,
    is_nan_on_an_empty_batch,
    has_the_gradient_of_its_value,
    is_stable_far_out,
    passes_nan_on,
    keeps_its_precision,
    is_the_same_under_autocast,
    maps_over_examples,
    differentiates_functionally,
    compiles_into_one_graph,
    takes_one_hot_for_a_class,
    means_probabilities,
    refuses_shapes_that_would_broadcast,
    refuses_integers_of_another_kind,
    takes_tensors_for_parameters,
)
