"""What holds numeric hyperparameters: in a declared range, and as numbers or as tensors.

The base of every loss: it scores each example, and `forward` averages the scores.

The base of losses for one class among C.

The base of losses that make something of how often each class occurs.

The base of losses that compare outputs with the target itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.card import Card, Parameter
from losslab.losses.class_weights import WeightRule, class_weight_tensor
from losslab.targets import Kind


def find_hyperparameter(loss: nn.Module, parameter: str) -> "tuple[HasHyperparameters, str]":
    """The module that holds a hyperparameter of a loss or of a part of it, and its name there.

    Args:
        loss: the whole.
        parameter: as under `loss.` on the command line, such as "gamma" or "terms.mae.weight".

    Raises:
        LabError: it names those there are.
    """
    places = {
        f"{path}.{name}".lstrip("."): (module, name)
        for path, module in loss.named_modules()
        if isinstance(module, HasHyperparameters)
        for name in module.hyperparameters
    }
    if parameter not in places:
        raise LabError(f"{parameter} is no number of this loss: it has {', '.join(places) or 'none'}")
    return places[parameter]


class HasHyperparameters(nn.Module):
    """A module with numeric hyperparameters, each of which may be a 0-dim tensor."""

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {}
    """Each by the name of its attribute and of the constructor's argument."""

    def set_hyperparameter(self, name: str, value: float | Tensor) -> None:
        """Keep a declared hyperparameter: numbers exactly as they are, tensors as buffers that follow the device.

        The buffers are not persistent: a hyperparameter is configuration, not something learnt.

        Raises:
            LabError: a number outside the declared range. Tensors pass: to look into one is to branch on values.
        """
        if isinstance(value, Tensor):
            self.__dict__.pop(name, None)
            self.register_buffer(name, value, persistent=False)
            return
        declared = self.hyperparameters[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not declared.holds(value):
            raise LabError(f"{type(self).__name__}: {name} must be a number in {declared.range}, got {value!r}")
        self._buffers.pop(name, None)
        setattr(self, name, float(value))

    hold = set_hyperparameter
    """The former name, for losses that were written with it."""


class Total(NamedTuple):
    """What sums over batches and processes, where means do not."""

    value: Tensor
    """Σ per_example → ()."""
    weight: Tensor
    """Σ example_weight → ()."""
    terms: Mapping[str, Tensor]
    """Of a loss made of several, Σ of each term by its name, unweighted → () each."""


class Loss(HasHyperparameters, ABC):
    """A loss scores each example; `forward` is the weighted mean of the scores, a drop-in criterion for any loop.

    A subclass declares `wants`, the kinds of target it takes in order of preference, its numeric `hyperparameters`
    (see `HasHyperparameters`) and its `card`, and writes `score`. It may override the rest below. A loss is a pure
    function of tensors: no state between calls, no branching on values.

    Shapes: outputs are (N, C) with an INDEX target (N,), and have the target's own shape with any other kind. With
    `outputs_per_target` or `n_views` above 1 they have so many times as many columns.
    """

    wants: tuple[Kind, ...] = ()
    outputs_per_target: int = 1
    """Outputs of the network for each target: 2 for a mean and a variance. Those of one meaning lie side by side."""
    n_views: int = 1
    """Sets of outputs that are scored together (see `loss_inputs`): 2 for a pupil and its teacher."""
    cosine_outputs: bool = False
    """Whether outputs are to be cosines: the network's last layer is then made one (see `losslab.models.cosine`)."""

    term_names: tuple[str, ...] = ()
    """The names of the terms of a loss made of several, as `total` sums them."""

    @property
    def card(self) -> Card | None:
        """What is claimed of this loss at its parameters; None if nothing is."""
        return None

    @abstractmethod
    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The formula. Called with outputs of at least float32 and (N, ...) shapes that fit → (N,)."""

    def per_example(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each example.

        Args:
            outputs: raw outputs of the network; half precision is raised to float32, float64 stays.
            target: of a kind in `wants`.

        Returns:
            (N,), in the precision it was computed in.

        Raises:
            LabError: the shapes would broadcast, or indices are not integers.
        """
        return self.score(*self._fitting(outputs, target))

    def example_weight(self, target: Tensor) -> Tensor:
        """The weight (N,) of each example in the mean: 1, unless the loss weights or ignores classes."""
        return torch.ones(target.shape[:1], device=target.device)

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """The sums of scores and weights of a batch."""
        scores = self.per_example(outputs, target)
        return Total(scores.sum(), self.example_weight(target).to(scores.dtype).sum(), {})

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The weighted mean of the batch → (). An empty batch gives NaN, as torch's own losses do."""
        total = self.total(outputs, target)
        return total.value / total.weight

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """What the outputs (N, C) of a classifier trained with this loss mean, for metrics → (N, C)."""
        return torch.softmax(outputs, dim=1)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """The values (N, D), or scores of classes (N, C), that the outputs of the network stand for."""
        return outputs

    def outputs(self, targets: int) -> int:
        """How many outputs a network needs for so many targets."""
        return targets * self.outputs_per_target

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:  # noqa: ARG002
        """What is scored: the network's outputs (N, C), and beside them whatever else a loss must see (N, views C)."""
        return outputs

    def set_class_counts(self, counts: Tensor) -> None:
        """Learn how often each class occurs in the training data, int64 (C,). Losses that hold others pass it on."""
        for part in self.children():
            if isinstance(part, Loss):
                part.set_class_counts(counts)

    def _check_outputs(self, outputs: Tensor, target: Tensor) -> None:
        """Refuse what torch refuses in words of its own, or computes with all the same.

        Raises:
            LabError: they are no dense tensors, the outputs no real numbers, or of too few or too many dimensions.
        """
        name = type(self).__name__
        for what, given in (("outputs", outputs), ("the target", target)):
            if not isinstance(given, Tensor):
                raise LabError(f"{name}: {what} must be a tensor, got a {type(given).__name__}: use torch.as_tensor")
            if given.layout is not torch.strided:
                raise LabError(f"{name}: {what} must be a dense tensor, got {given.layout}: use .to_dense()")
        if not outputs.dtype.is_floating_point:
            raise LabError(
                f"{name}: outputs must be real numbers such as float32, got {outputs.dtype}: use outputs.float()"
            )
        of_classes = Kind.INDEX in self.wants or self.wants[:1] == (Kind.PROBABILITIES,)
        if of_classes and outputs.ndim > 2:
            raise LabError(
                f"{name}: outputs must be (N, C), got {tuple(outputs.shape)}: where every pixel is an example, use "
                "outputs.movedim(1, -1).flatten(0, -2) and the target likewise"
            )
        if outputs.ndim < 1 + of_classes or 0 in outputs.shape[1:]:
            wanted = "(N, C)" if of_classes else "(N, D)"
            raise LabError(f"{name}: outputs must be {wanted} with at least one column, got {tuple(outputs.shape)}")

    def _fitting(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        self._check_outputs(outputs, target)
        name, times = type(self).__name__, self.outputs_per_target * self.n_views
        if outputs.dtype.itemsize < torch.float32.itemsize:
            outputs = outputs.float()
        if target.dtype.is_floating_point:
            wanted = (*target.shape[:-1], *(times * columns for columns in target.shape[-1:]))
            if wanted != outputs.shape:
                several = "" if times == 1 else f" (the target's shape with {times} times as many columns)"
                raise LabError(
                    f"{name}: outputs {tuple(outputs.shape)} and target {tuple(target.shape)} must have one shape"
                    f"{several} (they would broadcast or mismatch): reshape the target, e.g. target.view(outputs.shape)"
                )
            return outputs, target.to(outputs.dtype)
        if Kind.INDEX not in self.wants:
            raise LabError(
                f"{name} takes {' or '.join(self.wants)} targets as floats, got {target.dtype}: use "
                f"target.float(), or losslab.targets.encode for class indices"
            )
        if target.dtype != torch.int64 or target.shape != outputs.shape[:1] or outputs.ndim != 2:
            raise LabError(
                f"{name}: class indices must be int64 (N,) beside outputs (N, C), got {target.dtype} "
                f"{tuple(target.shape)} beside {tuple(outputs.shape)}"
            )
        if outputs.shape[1] % times:
            raise LabError(f"{name} scores {times} outputs for each class: {outputs.shape[1]} columns are no multiple")
        return outputs, target


class ClassLoss(Loss):
    """A loss of one class among C: a subclass says what each class would cost, and the target picks or mixes.

    Soft targets t are averaged over: Σ_k t_k L(z, k), the expected loss of a class drawn from t.

    Args:
        weight: one weight a class (C,), each ≥ 0, or a rule that makes them of the class counts (see
            `losslab.losses.class_weights`). The mean divides by the weights of the indices, and by N for soft targets,
            as torch's cross-entropy does.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    wants: tuple[Kind, ...] = (Kind.INDEX, Kind.PROBABILITIES)
    weight: Tensor | None
    supports_class_weights = True
    """Whether weights of classes mean something: not where the loss is no sum over classes."""

    def __init__(self, weight: Sequence[float] | Tensor | WeightRule | None = None, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.rule = weight if callable(weight) and not isinstance(weight, Tensor) else None
        given = None if self.rule is not None else class_weight_tensor(weight)  # type: ignore[arg-type]
        self.register_buffer("weight", given, persistent=False)

    @abstractmethod
    def classwise(self, outputs: Tensor) -> Tensor:
        """What each class would cost if it were the label: outputs (N, C) → (N, C)."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) or (N, C) → (N,)."""
        costs = self.classwise(outputs)
        wanted = (len(outputs), outputs.shape[1] // self.n_views)
        if costs.shape != wanted:
            raise LabError(
                f"{type(self).__name__}.classwise must give a cost of each class, {wanted}: got {tuple(costs.shape)}"
            )
        return self.pick(self.weighted(costs), target)

    def weighted(self, costs: Tensor) -> Tensor:
        """Costs (N, C), each times the weight of its class → (N, C).

        Raises:
            LabError: a rule for the weights has not seen any class counts, or there are more or fewer than C weights.
        """
        if self.weight is None:
            if self.rule is not None:
                raise LabError(
                    f"{type(self).__name__} makes its weights of class counts: call set_class_counts(counts)"
                )
            return costs
        if len(self.weight) != costs.shape[1]:
            raise LabError(f"weight must hold one number a class: got {len(self.weight)} for {costs.shape[1]} classes")
        return costs * self.weight.to(costs.dtype)

    def pick(self, costs: Tensor, target: Tensor) -> Tensor:
        """The cost of the target: costs (N, C), target (N,) or (N, C) → (N,), 0 where it is ignored."""
        if target.dtype.is_floating_point:
            return (target * costs).sum(1)
        counted = target != self.ignore_index
        label = target.where(counted, 0)
        return costs.gather(1, label.unsqueeze(1)).squeeze(1).where(counted, 0)

    def example_weight(self, target: Tensor) -> Tensor:
        """The weight of each index, 0 where ignored; 1 for soft targets → (N,)."""
        if target.dtype.is_floating_point:
            return super().example_weight(target)
        counted = target != self.ignore_index
        if self.weight is None:
            return counted.float()
        return self.weight[target.where(counted, 0)] * counted

    def set_class_counts(self, counts: Tensor) -> None:
        """Make the weights, if a rule for them was given."""
        if self.rule is not None:
            self.weight = self.rule(counts)


class ClassCountLoss(ClassLoss):
    """A loss of one class among C that must know how often each occurs in the training data.

    A class that does not occur is taken to be as rare as the rarest that does, so that nothing becomes infinite.

    Args:
        counts: n, how often each class occurs (C,); None to learn it from the data, through `set_class_counts`.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.

    Raises:
        LabError: the counts given are no numbers ≥ 0, or all 0.
    """

    counts: Tensor | None

    def __init__(
        self,
        counts: Sequence[int] | Tensor | None = None,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.by_hand = counts is not None
        self.register_buffer("counts", None, persistent=False)
        if counts is not None:
            self._learn(torch.as_tensor(counts if isinstance(counts, Tensor) else list(counts)))

    def set_class_counts(self, counts: Tensor) -> None:
        """Learn the counts, and make the weights of them if a rule was given, unless counts were given by hand."""
        if not self.by_hand:
            self._learn(counts)

    def frequencies(self, outputs: Tensor) -> Tensor:
        """The counts (C,) in the precision of the outputs (N, C), none of them 0.

        Raises:
            LabError: they are not known, or of more or fewer classes.
        """
        name = type(self).__name__
        if self.counts is None:
            raise LabError(
                f"{name} does not know the class counts: give counts=[...], or call set_class_counts(counts)"
            )
        if len(self.counts) != outputs.shape[1]:
            raise LabError(
                f"{name}: counts must hold one number a class: {len(self.counts)} for {outputs.shape[1]} classes"
            )
        return self.counts.to(outputs.dtype)

    def _learn(self, counts: Tensor) -> None:
        numbers = counts.double()
        if numbers.ndim != 1 or not (numbers >= 0).all() or not numbers.any():
            raise LabError(
                f"{type(self).__name__}: counts must hold one number ≥ 0 a class, not all of them 0: got {counts}"
            )
        self.counts = numbers.clamp(min=float(numbers[numbers > 0].min()))
        super().set_class_counts(counts)


class ResidualLoss(Loss):
    """A loss of the residual r = z - t, averaged over the outputs of an example.

    The outputs estimate the target itself, be it a value or the probability of a class.
    """

    wants: tuple[Kind, ...] = (Kind.VALUES, Kind.PROBABILITIES, Kind.BINARY)

    @abstractmethod
    def penalty(self, residual: Tensor) -> Tensor:
        """The loss of each residual → the same shape."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        return mean_over_outputs(self.penalty(outputs - target))

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The outputs themselves, kept inside [ε, 1] so that a logarithm can be taken → (N, C).

        ε is float32's 1.2e-7, the floor scikit-learn's log_loss uses. Rows need not sum to 1: the metrics of
        exclusive classes normalise them.
        """
        return outputs.clamp(torch.finfo(torch.float32).eps, 1.0)


def mean_over_outputs(values: Tensor) -> Tensor:
    """Element losses (N, ...) → (N,), so that the mean over examples is torch's mean over elements."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values
