"""The base classes of losses: `Loss`, and its subclasses for classes, residuals and independent labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, dataclass_transform

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.card import Card
from losslab.losses.hyperparameters import HasHyperparameters, argument, hyperparameter
from losslab.targets import Kind

WeightRule = Callable[[Tensor], Tensor]
"""A function from class counts, int64 (C,), to class weights, float (C,)."""
ClassWeights = Sequence[float] | Tensor | WeightRule | None
"""One weight per class (C,), a function that computes them such as `losslab.losses.imbalance.balanced`, or None."""


class Total(NamedTuple):
    """Sums over the examples of a batch. Unlike means, they can be added over batches and ranks."""

    value: Tensor
    """The sum of `per_example`, a scalar ()."""
    weight: Tensor
    """The sum of `example_weight`, a scalar ()."""
    terms: Mapping[str, Tensor]
    """For a `WeightedSum`, the sum () of each term by name, not multiplied by λ; empty for other losses."""


@dataclass_transform(eq_default=False, field_specifiers=(hyperparameter, argument))
class Loss(HasHyperparameters, ABC):
    """A loss that is computed for each example. The loss of one example is called its score.

    `forward` returns the weighted mean of the scores, like the losses of torch.nn. A subclass sets `wants`, declares
    its hyperparameters (see `losslab.losses.hyperparameters`) and its `card`, and defines `score`. It may override the
    other methods. A loss is a pure function of tensors: it keeps no state between calls, and its control flow does not
    depend on the values in the tensors.

    Shapes: with an INDEX target (N,), outputs are (N, C). With another kind of target, outputs have the shape of the
    target. `outputs_per_target` and `n_views` multiply the number of columns of the outputs.
    """

    wants: tuple[Kind, ...] = ()
    """The kinds of target that the loss accepts, in order of preference."""
    outputs_per_target: int = 1
    """Number of outputs for each target: 2 for a mean and a variance. All means come first, then all variances."""
    n_views: int = 1
    """Number of sets of outputs side by side that `score` takes: 2 for student and teacher, or two views of inputs."""
    scores_examples: bool = True
    """Whether each example has a loss of its own. If not, only a batch has one: `total`, but no `per_example`."""
    cosine_outputs: bool = False
    """Whether outputs must be cosines. If so, an experiment replaces the last layer by `losslab.models.cosine`."""
    term_names: tuple[str, ...] = ()
    """The names of the terms in `Total.terms`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for former, name in (("views", "n_views"), ("seen", "loss_inputs")):
            if former in vars(cls):  # a user's loss that was written when the attribute had this name
                setattr(cls, name, vars(cls)[former])

    @property
    def card(self) -> Card | None:
        """The facts that the loss declares at its current hyperparameters; None if it declares none.

        A subclass whose facts do not depend on hyperparameters sets a class attribute instead of this property.
        """
        return None

    @abstractmethod
    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the scores (N,). `per_example` has checked both tensors; outputs are float32 or float64."""

    def per_example(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each example (N,), in float64 if the outputs are float64, else in float32.

        Args:
            outputs: raw outputs of the network. Half precision is converted to float32.
            target: a target of a kind in `wants`.

        Raises:
            LabError: the shapes do not match, or class indices are not int64.
        """
        return self.score(*self._prepare(outputs, target))

    def example_weight(self, target: Tensor) -> Tensor:
        """Return the weights (N,) of the examples in the mean: 1, unless the loss weights or ignores classes."""
        return torch.ones(target.shape[:1], device=target.device)

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """Return the sums of the scores and weights of a batch."""
        scores = self.per_example(outputs, target)
        return Total(scores.sum(), self.example_weight(target).to(scores.dtype).sum(), {})

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the weighted mean () of the scores of a batch; NaN for an empty batch, as with torch's losses."""
        total = self.total(outputs, target)
        return total.value / total.weight

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Convert outputs (N, C) to the class probabilities (N, C) that they mean under this loss. Metrics use them."""
        return torch.softmax(outputs, dim=1)

    def to_logits(self, outputs: Tensor) -> Tensor | None:
        """Return the logits (N, C) of which `to_probabilities` is the softmax or the sigmoid; None if it is neither.

        Calibration changes these logits, see `losslab.analysis.evaluate.calibration`.
        """
        return outputs

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Convert outputs to predicted values (N, D), or to (N, C), where the largest column is the predicted class."""
        return outputs

    def outputs(self, targets: int) -> int:
        """Return the number of outputs that the network needs for `targets` classes, labels or values."""
        return targets * self.outputs_per_target

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:  # noqa: ARG002
        """Return what to score (N, n_views · C): `outputs` (N, C), concatenated with the outputs for other views."""
        return outputs

    def set_class_counts(self, counts: Tensor) -> None:
        """Receive the class counts of the training data, int64 (C,), and pass them to losses inside this loss."""
        for part in self.children():
            if isinstance(part, Loss):
                part.set_class_counts(counts)

    def _check_outputs(self, outputs: Tensor, target: Tensor) -> None:
        """Raise LabError unless both are dense tensors and outputs are floats with the right number of dimensions."""
        name = type(self).__name__
        for label, value in (("outputs", outputs), ("the target", target)):
            if not isinstance(value, Tensor):
                raise LabError(f"{name}: {label} must be a tensor, got a {type(value).__name__}: use torch.as_tensor")
            if value.layout is not torch.strided:
                raise LabError(f"{name}: {label} must be a dense tensor, got {value.layout}: use .to_dense()")
        if not outputs.dtype.is_floating_point:
            raise LabError(
                f"{name}: outputs must be real numbers such as float32, got {outputs.dtype}: use outputs.float()"
            )
        is_classification = Kind.INDEX in self.wants or self.wants[:1] == (Kind.PROBABILITIES,)
        if is_classification and outputs.ndim > 2:
            raise LabError(
                f"{name}: outputs must be (N, C), got {tuple(outputs.shape)}: where every pixel is an example, use "
                "outputs.movedim(1, -1).flatten(0, -2), and flatten the target in the same way"
            )
        if outputs.ndim < (2 if is_classification else 1) or 0 in outputs.shape[1:]:
            expected = "(N, C)" if is_classification else "(N, D)"
            raise LabError(f"{name}: outputs must be {expected} with at least one column, got {tuple(outputs.shape)}")

    def _prepare(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check outputs and target, and convert both to float32 or float64; class indices stay int64."""
        self._check_outputs(outputs, target)
        name, factor = type(self).__name__, self.outputs_per_target * self.n_views
        if outputs.dtype.itemsize < torch.float32.itemsize:
            outputs = outputs.float()
        if target.dtype.is_floating_point:
            expected = (*target.shape[:-1], *(factor * columns for columns in target.shape[-1:]))
            if expected != outputs.shape and factor > 1:
                raise LabError(
                    f"{name}: outputs {tuple(outputs.shape)} must have {factor} columns for each column of the target "
                    f"{tuple(target.shape)}"
                )
            if expected != outputs.shape:
                raise LabError(
                    f"{name}: outputs {tuple(outputs.shape)} and target {tuple(target.shape)} must have the same shape "
                    "(other shapes may broadcast): reshape the target, e.g. target.view(outputs.shape)"
                )
            return outputs, target.to(outputs.dtype)
        if Kind.INDEX not in self.wants:
            raise LabError(
                f"{name} takes {' or '.join(self.wants)} targets as floats, got {target.dtype}: use "
                "target.float(), or losslab.targets.encode for class indices"
            )
        if target.dtype != torch.int64 or target.shape != outputs.shape[:1] or outputs.ndim != 2:
            raise LabError(
                f"{name}: class indices must be int64 (N,) with outputs (N, C), got {target.dtype} "
                f"{tuple(target.shape)} with {tuple(outputs.shape)}"
            )
        if outputs.shape[1] % factor:
            raise LabError(
                f"{name} needs {factor} outputs for each class: {outputs.shape[1]} columns are not a multiple"
            )
        return outputs, target


class ClassLoss(Loss):
    """A loss for one class among C. A subclass defines `classwise`, which computes the costs of each example.

    The cost of class k is the loss L(z, k) if k is the label. A class index selects one cost; a soft target t gives
    the expected cost of a class drawn from t, Σ_k t_k L(z, k).

    Args:
        weight: one weight per class (C,), each ≥ 0, or a function that computes them from the class counts. As in
            torch's cross-entropy, the mean divides by the sum of the labels' weights, or by N for soft targets.
        ignore_index: a class index that marks examples to leave out of the sum and of the mean.
    """

    wants = (Kind.INDEX, Kind.PROBABILITIES)
    supports_class_weights = True
    """Whether class weights are possible: only for a loss that is linear in the target."""
    # Declared for type checkers: the constructors of subclasses take both arguments.
    weight: Any = argument(default=None, kw_only=True)
    ignore_index: int = argument(default=-100, kw_only=True)

    def __init__(self, weight: ClassWeights = None, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        rule = weight if callable(weight) and not isinstance(weight, Tensor) else None
        values = None if rule is not None else class_weight_tensor(weight)  # type: ignore[arg-type]
        self.weight_rule: WeightRule | None = rule
        self.register_buffer("weight", values, persistent=False)

    @abstractmethod
    def classwise(self, outputs: Tensor) -> Tensor:
        """Compute the costs (N, C) from outputs (N, n_views · C): for each class, the loss if it is the label."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the scores (N,) from outputs (N, n_views · C) and a target (N,) or (N, C)."""
        costs = self.classwise(outputs)
        expected = (len(outputs), outputs.shape[1] // self.n_views)
        if costs.shape != expected:
            raise LabError(
                f"{type(self).__name__}.classwise must return a loss per class, {expected}: got {tuple(costs.shape)}"
            )
        return self.pick(self.weighted(costs), target)

    def weighted(self, costs: Tensor) -> Tensor:
        """Multiply the costs (N, C) by the weight of each class. Raise LabError unless there are C weights."""
        if self.weight is None:
            if self.weight_rule is not None:
                raise LabError(
                    f"{type(self).__name__} computes its weights from class counts: call set_class_counts(counts)"
                )
            return costs
        if len(self.weight) != costs.shape[1]:
            raise LabError(
                f"weight must have one number per class: got {len(self.weight)} for {costs.shape[1]} classes"
            )
        weight: Tensor = self.weight.to(costs.dtype)
        return costs * weight

    def pick(self, costs: Tensor, target: Tensor) -> Tensor:
        """Return from costs (N, C) the scores (N,): the cost of a class index (0 if ignored), or Σ_k t_k costs_k."""
        if target.dtype.is_floating_point:
            return (target * costs).sum(1)
        counted = target != self.ignore_index
        label = target.where(counted, 0)
        return costs.gather(1, label.unsqueeze(1)).squeeze(1).where(counted, 0)

    def example_weight(self, target: Tensor) -> Tensor:
        """Return weights (N,): for class indices the class weight, or 0 if ignored; for soft targets 1."""
        if target.dtype.is_floating_point:
            return super().example_weight(target)
        counted = target != self.ignore_index
        if self.weight is None:
            return counted.float()
        weight: Tensor = self.weight[target.where(counted, 0)]
        return weight * counted

    def set_class_counts(self, counts: Tensor) -> None:
        """Compute the class weights from the counts if `weight` is a function."""
        if self.weight_rule is not None:
            self.weight = self.weight_rule(counts)


class ClassCountLoss(ClassLoss):
    """A loss for one class among C whose formula contains the class counts of the training data.

    A class without examples gets the count of the rarest class that has examples: 0 would give infinities or NaN.

    Args:
        counts: the number n of examples of each class (C,), not all 0; None if `set_class_counts` is called later.
        weight, ignore_index: see `ClassLoss`.
    """

    counts: Any = argument(default=None, kw_only=True)

    def __init__(
        self, counts: Sequence[int] | Tensor | None = None, weight: ClassWeights = None, ignore_index: int = -100
    ) -> None:
        super().__init__(weight, ignore_index)
        self._fixed_counts = counts is not None
        self.register_buffer("counts", None, persistent=False)
        if counts is not None:
            self._set_counts(torch.as_tensor(counts if isinstance(counts, Tensor) else list(counts)))

    def set_class_counts(self, counts: Tensor) -> None:
        """Set the counts, and compute class weights from them, unless `counts` was passed to the constructor."""
        if not self._fixed_counts:
            self._set_counts(counts)

    def positive_counts(self, outputs: Tensor) -> Tensor:
        """Return the counts (C,), none of them 0, in the dtype of outputs (N, C). Raise LabError unless there are C."""
        name = type(self).__name__
        if self.counts is None:
            raise LabError(f"{name} needs the class counts: pass counts=[...], or call set_class_counts(counts)")
        if len(self.counts) != outputs.shape[1]:
            raise LabError(
                f"{name}: counts must have one number per class: got {len(self.counts)} for {outputs.shape[1]} classes"
            )
        counts: Tensor = self.counts.to(outputs.dtype)
        return counts

    def _set_counts(self, counts: Tensor) -> None:
        numbers = counts.double()
        if numbers.ndim != 1 or not (numbers >= 0).all() or not numbers.any():
            raise LabError(
                f"{type(self).__name__}: counts must have one number ≥ 0 per class, not all of them 0: got {counts}"
            )
        self.counts = numbers.clamp(min=float(numbers[numbers > 0].min()))
        super().set_class_counts(counts)


class ResidualLoss(Loss):
    """A loss of the residual r = z - t, averaged over the outputs of an example.

    The outputs are estimates of the target itself, that is, of values or of class probabilities.
    """

    wants = (Kind.VALUES, Kind.PROBABILITIES, Kind.BINARY)

    @abstractmethod
    def penalty(self, residual: Tensor) -> Tensor:
        """Compute the loss of each residual, in the same shape."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the scores (N,) from outputs (N, D) and target (N, D)."""
        return mean_over_outputs(self.penalty(outputs - target))

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the outputs (N, C), clamped to [ε, 1] so that metrics can take logarithms.

        ε = 1.2e-7 is the resolution of float32, as in scikit-learn's log_loss. Rows need not sum to 1: the metrics of
        exclusive classes normalise them.
        """
        return outputs.clamp(torch.finfo(torch.float32).eps, 1.0)

    def to_logits(self, outputs: Tensor) -> None:
        """Return None: the outputs are estimates of the target, not logits."""


class SigmoidLoss(Loss):
    """A loss of K independent labels, with one logit z for each. Exclusive classes are treated as one-vs-all labels."""

    wants = (Kind.BINARY, Kind.PROBABILITIES)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return σ(z), the probability of each label (N, K)."""
        return torch.sigmoid(outputs)


def mean_over_outputs(values: Tensor) -> Tensor:
    """Return the means (N,) of values (N, ...) over all dimensions but the first."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def class_weight_tensor(weight: Sequence[float] | Tensor | None) -> Tensor | None:
    """Convert class weights to a tensor (C,). Raise LabError if one is negative or not a number, or all are 0."""
    if weight is None:
        return None
    values = weight.flatten().tolist() if isinstance(weight, Tensor) else weight
    numeric = not isinstance(values, str) and all(isinstance(value, int | float) for value in values)
    if not numeric or not values or not all(value >= 0 for value in values) or not any(values):
        raise LabError(f"weight must have one number ≥ 0 per class, not all of them 0: got {values}")
    return weight if isinstance(weight, Tensor) else torch.tensor([float(value) for value in values])
