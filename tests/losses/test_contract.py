"""What every loss promises, asked of every file in conf/loss: a new loss is tested by existing."""

from functools import cache
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from losslab import CONF
from losslab.errors import LabError
from losslab.help import choices
from losslab.losses.base import Loss
from losslab.targets import Kind, encode

NAMES = choices("loss")
CLASSES = 5


@cache
def config(name: str) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(CONF / "loss" / f"{name}.yaml"))


def make(name: str, **parameters: Any) -> Loss:
    return instantiate(config(name), **parameters)


def target_of(kind: Kind, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(1)
    match kind:
        case Kind.INDEX:
            return torch.randint(CLASSES, (n,), generator=random)
        case Kind.PROBABILITIES:
            return torch.rand(n, CLASSES, generator=random, dtype=dtype).softmax(1)
        case Kind.BINARY:
            return torch.randint(2, (n, CLASSES), generator=random).to(dtype)
        case Kind.VALUES:
            return torch.randn(n, CLASSES, generator=random, dtype=dtype)


def outputs_of(loss: Loss, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(2)
    return torch.randn(n, CLASSES * loss.outputs_per_target, generator=random, dtype=dtype)


CASES = [(name, kind) for name in NAMES for kind in make(name).wants]
each = pytest.mark.parametrize(("name", "kind"), CASES)


@each
def test_scores_every_example_by_itself(name, kind):
    loss = make(name)
    outputs, target = outputs_of(loss, 7), target_of(kind, 7)
    scores = loss.per_example(outputs, target)
    assert scores.shape == (7,)
    alone = torch.cat([loss.per_example(outputs[i : i + 1], target[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(scores, alone)


@each
def test_forward_is_the_weighted_mean_of_the_scores(name, kind):
    loss = make(name)
    outputs, target = outputs_of(loss, 7), target_of(kind, 7)
    weights = loss.example_weight(target).double()
    expected = loss.per_example(outputs, target).sum() / weights.sum()
    torch.testing.assert_close(loss(outputs, target), expected)


@each
def test_gradients_are_right_in_float64(name, kind):
    loss = make(name)
    outputs, target = outputs_of(loss, 3).requires_grad_(), target_of(kind, 3)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), (outputs,))


@each
@pytest.mark.parametrize("size", [17.0, 20.0, 90.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_far_out(name, kind, size, dtype):
    loss = make(name)
    target = target_of(kind, 2 * CLASSES, torch.float32)
    signs = torch.eye(CLASSES).mul(2).sub(1)
    outputs = (size * torch.cat([signs, -signs])).to(dtype).requires_grad_()
    value = loss(outputs, target)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(outputs.grad).all()


@each
def test_nan_in_gives_nan_out(name, kind):
    loss = make(name)
    outputs, target = outputs_of(loss, 3), target_of(kind, 3)
    outputs[1] = torch.nan
    scores = loss.per_example(outputs, target)
    assert scores.isnan().tolist() == [False, True, False]


@each
def test_an_empty_batch_gives_nan_as_torchs_losses_do(name, kind):
    loss = make(name)
    assert loss(outputs_of(loss, 0), target_of(kind, 0)).isnan()


@each
def test_float64_stays_and_half_precision_is_raised(name, kind):
    loss = make(name)
    target = target_of(kind, 3)
    for given, computed in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
    ):
        outputs = outputs_of(loss, 3, torch.float32).to(given)
        assert loss.per_example(outputs, target).dtype == computed


@each
def test_the_same_under_vmap_over_examples(name, kind):
    loss = make(name)
    outputs, target = outputs_of(loss, 6), target_of(kind, 6)
    batched = torch.func.vmap(lambda z, t: loss.per_example(z[None], t[None])[0])(outputs, target)
    torch.testing.assert_close(batched, loss.per_example(outputs, target))


@each
def test_the_same_under_func_grad(name, kind):
    loss = make(name)
    outputs, target = outputs_of(loss, 6).requires_grad_(), target_of(kind, 6)
    loss(outputs, target).backward()
    torch.testing.assert_close(torch.func.grad(loss)(outputs.detach(), target), outputs.grad)


@each
def test_compiles_into_one_graph(name, kind):
    torch.compiler.reset()
    loss = make(name)
    outputs, target = outputs_of(loss, 6), target_of(kind, 6)
    compiled = torch.compile(loss, fullgraph=True, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(outputs, target), loss(outputs, target))


def numeric_parameters(name: str) -> list[str]:
    return [k for k, v in config(name).items() if isinstance(v, float) and not k.startswith("_")]


@pytest.mark.parametrize(
    ("name", "kind", "parameter"), [(name, kind, p) for name, kind in CASES for p in numeric_parameters(name)]
)
def test_a_parameter_may_be_a_tensor_and_be_mapped_over(name, kind, parameter):
    loss = make(name)
    outputs, target = outputs_of(loss, 4), target_of(kind, 4)
    values = [0.1, 0.4, 0.9]

    def with_value(value: Tensor) -> Tensor:
        tensor_loss = type(loss)(**{parameter: value})
        return tensor_loss(outputs, target)

    mapped = torch.func.vmap(with_value)(torch.tensor(values, dtype=torch.float64))
    single = torch.stack([make(name, **{parameter: value})(outputs, target) for value in values])
    torch.testing.assert_close(mapped, single)


@pytest.mark.parametrize("name", [name for name in NAMES if {Kind.INDEX, Kind.PROBABILITIES} <= set(make(name).wants)])
def test_hard_targets_equal_soft_one_hot_targets(name):
    loss = make(name)
    outputs, target = outputs_of(loss, 6), target_of(Kind.INDEX, 6)
    soft = encode(target, Kind.INDEX, Kind.PROBABILITIES, CLASSES, torch.float64)
    torch.testing.assert_close(loss.per_example(outputs, soft), loss.per_example(outputs, target))


@each
def test_what_the_outputs_mean_keeps_their_order_and_lies_between_0_and_1(name, kind):
    if kind is Kind.VALUES:
        pytest.skip("values are no probabilities")
    loss = make(name)
    outputs = outputs_of(loss, 20).sigmoid()
    probabilities = loss.to_probabilities(outputs)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert torch.equal(probabilities.argmax(1), outputs.argmax(1))


@each
def test_shapes_that_would_broadcast_are_refused(name, kind):
    loss = make(name)
    if kind is Kind.INDEX:
        with pytest.raises(LabError, match="int64"):
            loss(outputs_of(loss, 3), target_of(kind, 3)[:, None])
    else:
        with pytest.raises(LabError, match="one shape"):
            loss(outputs_of(loss, 3), target_of(kind, 3)[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_integer_targets_of_the_wrong_kind_are_refused(name):
    loss = make(name)
    wrong = torch.zeros(3, dtype=torch.int32)
    with pytest.raises(LabError, match=r"int64|floats"):
        loss(outputs_of(loss, 3), wrong)


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_has_a_comment_that_says_what_it_is(name):
    assert (CONF / "loss" / f"{name}.yaml").read_text().startswith("# ")
