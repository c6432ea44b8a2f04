"""The base of losses for one class among C."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.losses.class_weights import Rule, as_tensor
from losslab.targets import Kind


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
    weighable = True
    """Whether weights of classes mean something: not where the loss is no sum over classes."""

    def __init__(self, weight: Sequence[float] | Tensor | Rule | None = None, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.rule = weight if callable(weight) and not isinstance(weight, Tensor) else None
        given = None if self.rule is not None else as_tensor(weight)  # type: ignore[arg-type]
        self.register_buffer("weight", given, persistent=False)

    @abstractmethod
    def classwise(self, outputs: Tensor) -> Tensor:
        """What each class would cost if it were the label: outputs (N, C) → (N, C)."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) or (N, C) → (N,)."""
        costs = self.classwise(outputs)
        wanted = (len(outputs), outputs.shape[1] // self.views)
        if costs.shape != wanted:
            message = (
                f"{type(self).__name__}.classwise must give a cost of each class, {wanted}: got {tuple(costs.shape)}"
            )
            raise LabError(message)
        return self.pick(self.weighted(costs), target)

    def weighted(self, costs: Tensor) -> Tensor:
        """Costs (N, C), each times the weight of its class → (N, C).

        Raises:
            LabError: a rule for the weights has not seen any class counts, or there are more or fewer than C weights.
        """
        if self.weight is None:
            if self.rule is not None:
                message = f"{type(self).__name__} makes its weights of class counts: call set_class_counts(counts)"
                raise LabError(message)
            return costs
        if len(self.weight) != costs.shape[1]:
            message = f"weight must hold one number a class: got {len(self.weight)} for {costs.shape[1]} classes"
            raise LabError(message)
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
