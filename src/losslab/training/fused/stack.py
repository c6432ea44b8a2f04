"""Networks and losses with a leading member dimension: many trainings of one architecture take one step together.

Every member keeps an ordinary network and loss. `Stacked` holds their parameters and buffers as tensors (M, ...), and
calls one of the modules with all of them through torch.func.vmap.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from losslab.data.batch import DataSpec
from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.losses.hyperparameters import HasHyperparameters, find_hyperparameter
from losslab.targets import choose_kind, encode


class NotFusableError(LabError):
    """Runs cannot be trained together, although each of them can be trained alone."""


class Stacked(nn.Module):
    """M modules of one architecture as one module, with parameters and buffers (M, ...).

    Args:
        modules: the modules. Their tensors are copied.

    Raises:
        NotFusableError: the modules differ in more than the values of their parameters and buffers.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        if any(_signature(module) != _signature(modules[0]) for module in modules[1:]):
            raise NotFusableError("the shapes of their parameters differ")
        # In a list, because it is no part of this module: in each call, its tensors are replaced.
        self._template = [copy.deepcopy(modules[0])]
        for module in self.template.modules():
            if type(module) is nn.Linear:
                module.__class__ = _Linear
        self.parameter_names = [name for name, _ in modules[0].named_parameters()]
        columns = zip(*(module.parameters() for module in modules), strict=True)
        self.stacked_parameters = nn.ParameterList(
            nn.Parameter(torch.stack([each.detach() for each in column]), requires_grad=column[0].requires_grad)
            for column in columns
        )
        buffers = [dict(module.named_buffers()) for module in modules]
        stacked = {name: torch.stack([each[name] for each in buffers]) for name in buffers[0]}
        self.buffer_names = [*stacked]
        for index, tensor in enumerate(stacked.values()):
            self.register_buffer(f"buffer_{index}", tensor)

    @property
    def template(self) -> nn.Module:
        """The module that is called. Its own tensors have no meaning."""
        return self._template[0]

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the stacked parameters and the stacked buffers, by their names in the modules."""
        parameters = dict(zip(self.parameter_names, self.stacked_parameters, strict=True))
        return parameters, {name: self.get_buffer(f"buffer_{index}") for index, name in enumerate(self.buffer_names)}

    def call(self, function: Callable[..., Any], *arguments: Tensor, shared: bool = False) -> Any:
        """Call `function(module, *arguments)` for each member, and return the stacked results.

        Args:
            function: it gets the module with the tensors of a member, and the member's arguments.
            arguments: tensors (M, ...), or if `shared`, tensors that all members get.
            shared: whether all members get the same arguments.
        """
        parameters, buffers = self.tensors()
        wrapper = _Call(self.template, function)
        own: list[Any] = [{f"module.{name}": each for name, each in part.items()} for part in (parameters, buffers)]
        self.template.train(self.training)

        def call_one(own_parameters: Any, own_buffers: Any, *own_arguments: Tensor) -> Any:
            if not own_parameters and not own_buffers:  # a loss without hyperparameters that vary
                return function(self.template, *own_arguments)
            return functional_call(wrapper, (own_parameters, own_buffers), own_arguments)

        dimensions = (0, 0, *[None if shared else 0] * len(arguments))
        return vmap(call_one, in_dims=dimensions, randomness="error")(*own, *arguments)

    def forward(self, inputs: Tensor, *, shared: bool = False) -> Tensor:
        """Compute outputs (M, N, ...) from inputs (M, N, ...), or (N, ...) if they are `shared`."""
        outputs: Tensor = self.call(_forward, inputs, shared=shared)
        return outputs

    def state_of(self, member: int, prefix: str = "") -> dict[str, Tensor]:
        """Return copies of the tensors of a member that are in the `state_dict` of its module."""
        parameters, buffers = self.tensors()
        tensors = parameters | buffers
        return {prefix + name: tensors[name][member].detach().clone() for name in self.template.state_dict()}


class _Call(nn.Module):
    """A function with a module as its first argument, in the form in which functional_call replaces tensors."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *arguments: Tensor) -> Any:
        return self.function(self.module, *arguments)


class _Linear(nn.Linear):
    """nn.Linear in the order of factors that is three times faster with stacked weights, in the backward pass too."""

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.ndim != 2:
            return super().forward(inputs)
        outputs = (self.weight @ inputs.T).T
        return outputs if self.bias is None else outputs + self.bias


def _forward(module: nn.Module, inputs: Tensor) -> Any:
    return module(inputs)


def _signature(module: nn.Module) -> list[tuple[Any, ...]]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, each.shape, each.dtype, each.requires_grad) for name, each in named]


class LossStack(nn.Module):
    """The losses of M members. Losses of the same structure are called together, see `LossGroup`.

    Args:
        losses: the loss of each member.
        spec: specification of the data.
        dtype: dtype of the outputs.
        annealed: paths of the hyperparameters that `set_hyperparameter` will change.
    """

    def __init__(
        self, losses: Sequence[Loss], spec: DataSpec, dtype: torch.dtype, annealed: Sequence[str] = ()
    ) -> None:
        super().__init__()
        rows: dict[Any, list[int]] = {}
        for member, loss in enumerate(losses):
            rows.setdefault(structure(loss), []).append(member)
        parts = [([losses[member] for member in each], each) for each in rows.values()]
        groups = [LossGroup(*part, spec, dtype, annealed) for part in parts]
        self.groups: Any = nn.ModuleList(groups)
        self.term_names = [name for group in groups for name in group.term_names]

    def totals(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the sum of losses (M,), the sum of weights (M,), and the sum of each term (M,), NaN without the term.

        Args:
            outputs: raw outputs (M, N, C).
            target: targets (M, N, ...) of the kind in the specification of the data.
        """
        parts = [group.totals(outputs, target) for group in self.groups]
        names = {name: None for _, _, terms in parts for name in terms}
        terms = {
            name: self._merge([part[2].get(name, torch.full_like(part[0], torch.nan)) for part in parts])
            for name in names
        }
        return self._merge([part[0] for part in parts]), self._merge([part[1] for part in parts]), terms

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return `to_predictions` of each member's loss, (M, N, D) or (M, N, C), for outputs (M, N, ...)."""
        return self._merge([group.convert(Loss.to_predictions.__name__, outputs) for group in self.groups])

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return `to_probabilities` of each member's loss, (M, N, C) or (M, N, K), for outputs (M, N, ...)."""
        return self._merge([group.convert(Loss.to_probabilities.__name__, outputs) for group in self.groups])

    def set_hyperparameter(self, path: str, values: Tensor) -> None:
        """Set a hyperparameter, given its values (M,). It stays as it is for members whose value is NaN."""
        for group in self.groups:
            group.set_hyperparameter(path, values)

    def state_of(self, member: int, prefix: str = "") -> dict[str, Tensor]:
        """Return copies of the persistent tensors of a member's loss."""
        group: Any = next(group for group in self.groups if member in group.members)
        state: dict[str, Tensor] = group.stacked.state_of(group.members.index(member), prefix)
        return state

    def _merge(self, parts: Sequence[Tensor]) -> Tensor:
        """Return one tensor (M, ...) from tensors (members of the group, ...) of all groups."""
        if len(parts) == 1:
            return parts[0]
        return torch.cat([*parts])[self._order]

    @property
    def _order(self) -> Tensor:
        return torch.cat([group.rows for group in self.groups]).argsort()


class LossGroup(nn.Module):
    """The losses of members that differ only in the values of parameters, buffers and hyperparameters.

    Args:
        losses: the loss of each of these members.
        rows: the indices of these members in the stack.
        spec, dtype, annealed: see `LossStack`.

    Raises:
        NotFusableError: the loss needs more than the outputs of the network, or has parameters that are learned.
    """

    rows: Tensor

    def __init__(
        self,
        losses: Sequence[Loss],
        rows: Sequence[int],
        spec: DataSpec,
        dtype: torch.dtype,
        annealed: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        self.spec, self.term_names, self.members = spec, losses[0].term_names, [*rows]
        kind = choose_kind(spec.kind, losses[0].wants)
        if kind is None or losses[0].n_views > 1:
            raise NotFusableError(f"{type(losses[0]).__name__} scores several sets of outputs")
        if next(losses[0].parameters(), None) is not None:
            raise NotFusableError("the loss has parameters that are learned")
        self.kind = kind
        varying = [path for path in hyperparameter_paths(losses[0]) if path in annealed or _varies(losses, path)]
        copies = [copy.deepcopy(loss) for loss in losses] if varying else losses
        for loss in copies if varying else ():
            for path in varying:
                owner, name = find_hyperparameter(loss, path)
                owner.set_hyperparameter(name, torch.as_tensor(getattr(owner, name), dtype=dtype))
        self.stacked = Stacked(copies)

    def totals(self, outputs: Tensor, target: Tensor) -> Any:
        """Return the `Total` of the members of this group; its tensors are (members,). See `LossStack.totals`."""

        def total(loss: Loss, own_outputs: Tensor, own_target: Tensor) -> Any:
            dtype = torch.promote_types(own_outputs.dtype, torch.float32)
            return loss.total(own_outputs, encode(own_target, self.spec.kind, self.kind, self.spec.targets, dtype))

        return self.stacked.call(total, self._own(outputs), self._own(target))

    def convert(self, method: str, outputs: Tensor) -> Tensor:
        """Call a method of the losses with the outputs of the members, in float32 or float64."""
        own = self._own(outputs)
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        if getattr(type(self.stacked.template), method) is Loss.to_predictions:
            return own  # it returns the outputs
        converted: Tensor = self.stacked.call(lambda loss, each: getattr(loss, method)(each), own)
        return converted

    def set_hyperparameter(self, path: str, values: Tensor) -> None:
        """Set a hyperparameter, given its values (M,) for all members of the stack. See `LossStack`."""
        buffer = self.stacked.tensors()[1].get(path)
        if buffer is not None:
            own = values[self.rows].to(buffer)
            buffer.copy_(own.where(~own.isnan(), buffer))

    def _own(self, values: Tensor) -> Tensor:
        return values if len(self.rows) == len(values) else values[self.rows]


def hyperparameter_paths(loss: Loss) -> list[str]:
    """Return the path of each hyperparameter of a loss, as `find_hyperparameter` takes it."""
    return [
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in loss.named_modules()
        if isinstance(module, HasHyperparameters)
        for name in module.hyperparameters
    ]


def structure(loss: Loss) -> tuple[Any, ...]:
    """Return what must be equal in losses that are called together: all but parameters, buffers and hyperparameters."""
    parts = []
    for path, module in loss.named_modules():
        hyperparameters = getattr(module, "hyperparameters", {})
        internal = {"training", "_buffers", "_modules", "_parameters"}
        own = {name: value for name, value in vars(module).items() if name not in {*hyperparameters, *internal}}
        settings = tuple((name, _comparable(value)) for name, value in own.items())
        tensors = [(name, each.shape) for name, each in module._buffers.items() if each is not None]  # noqa: SLF001
        shapes = tuple(each for each in tensors if each[0] not in hyperparameters)
        parts.append((path, type(module), settings, shapes))
    return tuple(parts)


def _comparable(value: Any) -> Any:
    """Return a setting in a form that is hashable, and equal only for the same setting."""
    if isinstance(value, dict):
        return tuple((key, _comparable(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_comparable, value))
    if isinstance(value, set | frozenset):
        return tuple(sorted(map(repr, value)))
    return value if isinstance(value, int | float | str | None) else (type(value), id(value))


def _varies(losses: Sequence[Loss], path: str) -> bool:
    values = {float(getattr(*find_hyperparameter(loss, path))) for loss in losses}
    return len(values) > 1
