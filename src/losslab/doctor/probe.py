"""The same network with other weights: what holds for any weights lies in its architecture.

What is noted of a network's layers while it computes.

What a loss takes the outputs for, found out by trying.

What a loss takes the outputs for. Known of torch's and this package's losses by their class.

Look at a network without leaving a trace.
"""

import functools
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.losses.base import Loss
from losslab.targets import Kind

_SPREADS = (10.0, 1.0, 3.0, 30.0) * 4
"""First the one that tells most often. By chance all outputs have one sign once in two draws, and never in sixteen."""
_ROWS = 8


def random_reweightings(network: nn.Module, inputs: Any) -> Iterator[Tensor]:
    """Outputs with weights drawn around the network's own, at several spreads.

    A number that is in no way bounded leaves any range at one of them.
    Where there are no weights, the inputs are drawn.
    """
    random = torch.Generator().manual_seed(0)
    inputs = inputs[:_ROWS] if isinstance(inputs, Tensor) else inputs
    own = {name: p.detach() for name, p in network.named_parameters()}
    for spread in _SPREADS:
        drawn = {name: p + spread * _scale(p) * _normal(p, random) for name, p in own.items() if p.is_floating_point()}
        with torch.no_grad():
            if not drawn:
                inputs = inputs + spread * inputs.std() * _normal(inputs, random)
            yield torch.func.functional_call(network, drawn, (inputs,), strict=False)


def _scale(parameter: Tensor) -> Tensor:
    """The size of a parameter, or, where it is (nearly) 0, that of a usual initialisation: 1 / √fan_in."""
    fan_in = parameter[0].numel() if parameter.ndim > 1 and len(parameter) else 4
    return parameter.square().mean().sqrt().clamp(min=fan_in**-0.5)


def _normal(like: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=random).to(like)


SQUASHING = (
    nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.ReLU,
    nn.ReLU6, nn.Softplus, nn.Softsign,
)  # fmt: skip
"""Layers that cannot give every number."""


@dataclass
class Layers:
    """The first layer with weights and what it was given, and what each squashing layer gave, by name."""

    first: tuple[str, nn.Module, Tensor] | None = None
    squashed: dict[str, tuple[nn.Module, Tensor]] = field(default_factory=dict)

    def last(self, outputs: Tensor) -> str | None:
        """The squashing layer whose outputs are the network's, as in "Softmax (layer 3)"; None if there is none."""
        for name, (module, given) in self.squashed.items():
            if given.data_ptr() == outputs.data_ptr():  # also through a squeeze or a flatten
                return f"{type(module).__name__} (layer {name})" if name else type(module).__name__
        return None

    def enter(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Note that a layer with weights begins; a forward pre-hook."""
        if self.first is None and inputs and isinstance(inputs[0], Tensor):
            self.first = name, module, inputs[0].detach()

    def leave(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        """Note what a squashing layer gave; a forward hook."""
        if isinstance(output, Tensor):
            self.squashed[name] = module, output.detach()


@contextmanager
def watched(network: nn.Module) -> Iterator[Layers]:
    """Note what passes the layers of a network."""
    layers = Layers()
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    hooks = [
        module.register_forward_pre_hook(partial(layers.enter, name))
        for name, module in leaves
        if any(True for _ in module.parameters())
    ]
    hooks += [
        module.register_forward_hook(partial(layers.leave, name))
        for name, module in leaves
        if isinstance(module, SQUASHING)
    ]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


Criterion = Callable[[Any, Any], Any]


class Reads(StrEnum):
    """What a loss takes the outputs for."""

    LOGITS = "logits of exclusive classes"
    """It takes their softmax by itself."""
    BINARY_LOGITS = "logits of yes and no"
    """It takes their sigmoid by itself."""
    LOG_PROBABILITIES = "log-probabilities"
    PROBABILITIES = "probabilities of yes"
    SIGNED = "scores beside targets of -1 and 1"
    SCORES = "scores of exclusive classes"
    VALUES = "values"
    UNKNOWN = "outputs"


def by_trial(loss: Criterion, outputs: Tensor, target: Tensor) -> Reads:
    """Hold the loss against others on outputs drawn at random: the one that has the same value does the same."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(outputs.shape, generator=random).to(outputs.dtype)
    target = target.cpu()  # where a class that is not there raises and does not end the process's use of the GPU
    if not target.is_floating_point() and outputs.ndim > 1:
        target = target.clamp(0, outputs.shape[1] - 1)
    with torch.no_grad():
        for reads, reference, probe in (
            (Reads.VALUES, F.mse_loss, drawn),
            (Reads.VALUES, F.l1_loss, drawn),
            (Reads.BINARY_LOGITS, F.binary_cross_entropy_with_logits, drawn),
            (Reads.PROBABILITIES, F.binary_cross_entropy, drawn.sigmoid()),
            (Reads.LOG_PROBABILITIES, F.nll_loss, drawn),
            (Reads.LOG_PROBABILITIES, functools.partial(F.kl_div, reduction="batchmean"), drawn),
        ):
            value = tried(loss, probe, target)
            if value is not None and _same(value, tried(reference, probe, _like(target, probe, reference))):
                return reads
        return Reads.LOGITS if _takes_a_softmax(loss, drawn, target) else Reads.UNKNOWN


def _takes_a_softmax(loss: Criterion, drawn: Tensor, target: Tensor) -> bool:
    """Whether a number that is added to all logits of an example changes nothing, and other changes do."""
    if drawn.ndim != 2 or drawn.shape[1] < 2:
        return False
    value, shifted = tried(loss, drawn, target), tried(loss, drawn + 2 * drawn[:, :1].abs() + 1, target)
    other = tried(loss, drawn * 2, target)
    return value is not None and _same(value, shifted) and not _same(value, other)


def _like(target: Tensor, outputs: Tensor, reference: Any) -> Tensor:
    """The target as the reference takes it; the loss itself may convert it."""
    if reference is F.nll_loss:
        return target.long()
    return target.to(outputs.dtype).view_as(outputs) if target.numel() == outputs.numel() else target


@torch.no_grad()
def tried(loss: Criterion, outputs: Tensor, target: Tensor) -> Tensor | None:
    """The loss of these outputs, if it is one finite number."""
    try:
        value = loss(outputs, target)
    except Exception:  # noqa: BLE001 -- a stranger's code, which is only asked what it does
        return None
    return value if isinstance(value, Tensor) and value.numel() == 1 and bool(value.isfinite().all()) else None


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and bool(torch.isclose(value.double(), other.double(), rtol=1e-4, atol=1e-7).all())


def accepts(loss: Criterion, outputs: Tensor, target: Tensor) -> bool:
    """Whether the loss gives a finite number for these outputs and targets. Asked on the CPU: see `by_trial`."""
    here = deepcopy(loss).cpu() if isinstance(loss, nn.Module) and target.device.type != "cpu" else loss
    with torch.no_grad():
        return tried(here, outputs.detach().cpu(), target.cpu()) is not None


_BY_CLASS: dict[type, Reads] = {
    nn.CrossEntropyLoss: Reads.LOGITS,
    nn.NLLLoss: Reads.LOG_PROBABILITIES,
    nn.KLDivLoss: Reads.LOG_PROBABILITIES,
    nn.BCEWithLogitsLoss: Reads.BINARY_LOGITS,
    nn.MultiLabelSoftMarginLoss: Reads.BINARY_LOGITS,
    nn.BCELoss: Reads.PROBABILITIES,
    nn.SoftMarginLoss: Reads.SIGNED,
    nn.HingeEmbeddingLoss: Reads.SIGNED,
    nn.MultiMarginLoss: Reads.SCORES,
    nn.MSELoss: Reads.VALUES,
    nn.L1Loss: Reads.VALUES,
    nn.SmoothL1Loss: Reads.VALUES,
    nn.HuberLoss: Reads.VALUES,
    nn.PoissonNLLLoss: Reads.VALUES,
}
_CLASS_OF: dict[Any, type] = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.kl_div: nn.KLDivLoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
    F.multilabel_soft_margin_loss: nn.MultiLabelSoftMarginLoss,
    F.binary_cross_entropy: nn.BCELoss,
    F.soft_margin_loss: nn.SoftMarginLoss,
    F.hinge_embedding_loss: nn.HingeEmbeddingLoss,
    F.multi_margin_loss: nn.MultiMarginLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.poisson_nll_loss: nn.PoissonNLLLoss,
}


def is_a(loss: Criterion, kind: type) -> bool:
    """Whether the loss is torch's module of this class, or the function that does the same."""
    function = loss.func if isinstance(loss, functools.partial) else loss
    return isinstance(loss, kind) or (callable(function) and _CLASS_OF.get(_hashable(function)) is kind)


def setting(loss: Criterion, name: str, default: Any = None) -> Any:
    """A parameter of the loss: an attribute of a module, or a keyword of a functools.partial."""
    if isinstance(loss, functools.partial):
        return loss.keywords.get(name, default)
    return getattr(loss, name, default)


def what_it_reads(loss: Criterion, outputs: Tensor, target: Tensor) -> Reads:
    """Of a known loss by its class; of any other by what it does to outputs (N, ...) of this shape."""
    if isinstance(loss, Loss):
        return _of_losslab(loss, outputs)
    known = _of_torch(loss)
    if known is not None:
        return known
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch.nn."):
        return Reads.UNKNOWN  # torch's others: they take more than two arguments, or targets of a format of their own
    return by_trial(loss, outputs, target)


def is_known(loss: Criterion) -> bool:
    """Whether what the loss reads is known of its class, and not only tried."""
    return isinstance(loss, Loss) or _of_torch(loss) is not None


def _of_torch(loss: Criterion) -> Reads | None:
    return next((reads for kind, reads in _BY_CLASS.items() if is_a(loss, kind)), None)


def _of_losslab(loss: Loss, outputs: Tensor) -> Reads:
    first = loss.wants[0]
    if first is Kind.VALUES:
        return Reads.VALUES  # what it says of probabilities may be the base's softmax, and means nothing
    columns = outputs.shape[1] if outputs.ndim > 1 else 1
    probe = torch.linspace(-2, 3, 2 * columns, device=outputs.device).view(2, columns)
    try:
        probabilities = loss.to_probabilities(probe)
    except Exception:  # noqa: BLE001 -- one's own loss, which need not mean probabilities
        probabilities = probe
    if first is not Kind.BINARY and torch.allclose(probabilities, probe.softmax(1)):
        return Reads.LOGITS
    if torch.allclose(probabilities, probe.sigmoid()):
        return Reads.BINARY_LOGITS
    return Reads.SCORES if Kind.INDEX in loss.wants else Reads.UNKNOWN


def _hashable(function: Any) -> Any:
    return function if function.__hash__ is not None else None


@contextmanager
def preserve_state(*parts: Any) -> Iterator[None]:
    """Give back all that computing with these modules changes.

    That is the state of every random generator (torch's on each device, Python's, NumPy's where it is loaded), and of
    each module its buffers, mode and attributes. Gradients are the caller's to leave alone: take them with
    torch.autograd.grad. Parameters are not copied: a network whose `forward` overwrites them is changed.
    """
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    with ExitStack() as undo:
        for restore in [*_generators(), *(_of(module) for module in modules)]:
            undo.callback(restore)
        yield


def _generators() -> list[Callable[[], Any]]:
    found: list[Callable[[], Any]] = [
        partial(torch.default_generator.set_state, torch.default_generator.get_state()),
        partial(random.setstate, random.getstate()),
    ]
    if torch.cuda.is_initialized():
        found += [
            partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
            for device in range(torch.cuda.device_count())
        ]
    if torch.backends.mps.is_available():
        found.append(partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found.append(partial(numpy.random.set_state, numpy.random.get_state()))
    return found


def _of(module: nn.Module) -> Callable[[], None]:
    """What brings a module back to where it is now."""
    attributes = dict(vars(module))
    tables = [(value, dict(value)) for value in attributes.values() if isinstance(value, dict)]
    lists = [(value, list(value)) for value in attributes.values() if isinstance(value, list)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers(recurse=False)]

    def restore() -> None:
        vars(module).clear()
        vars(module).update(attributes)
        for table, content in tables:
            table.clear()
            table.update(content)
        for items, held in lists:
            items[:] = held
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    return restore
