"""A loss that is a weighted sum of others."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.base import ClassLoss, HasHyperparameters, Loss, Total
from losslab.losses.card import Card, Parameter, Slope


class Term(HasHyperparameters):
    """A loss, and the weight it has in a sum."""

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "weight": Parameter("the weight of the term", "[0, inf)", "the configuration's", ()),
    }
    weight: float | Tensor

    def __init__(self, loss: Loss, weight: float | Tensor = 1.0) -> None:
        super().__init__()
        if not isinstance(loss, Loss):
            raise LabError(f"a term of a weighted_sum needs a loss, got {loss!r}")
        self.loss = loss
        self.set_hyperparameter("weight", weight)


class WeightedSum(Loss):
    """Σ_i λ_i L_i(z, t). Each term is logged unweighted, as train/loss/NAME.

    Args:
        terms: by name, {"loss": a Loss, "weight": λ ≥ 0}. All see the same targets, so they must share a kind, and
            give classes the same weights.

    Raises:
        LabError: there are no terms, or they do not fit each other.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        wrong = [
            name for name, term in terms.items() if not isinstance(term, Mapping) or set(term) - {"loss", "weight"}
        ]
        if wrong:
            raise LabError(
                f"a term of a weighted_sum has a loss and a weight, and nothing else: terms.{wrong[0]} differs"
            )
        self.terms = nn.ModuleDict({name: Term(**term) for name, term in terms.items()})
        losses = self._losses
        kinds = [kind for kind in losses[0].wants if all(kind in loss.wants for loss in losses)] if losses else []
        if not kinds:
            raise LabError(f"weighted_sum needs terms that take one kind of target: got {_names(losses) or 'none'}")
        if len({_weighting(loss) for loss in losses}) > 1 or len({loss.outputs_per_target for loss in losses}) > 1:
            raise LabError(
                f"the terms of a weighted_sum must have the same weight and ignore_index, and as many outputs for each "
                f"target: {_names(losses)} differ"
            )
        if len([loss for loss in losses if loss.n_views > 1]) > 1:
            raise LabError(
                f"only one term of a weighted_sum can look at more than the network's outputs: {_names(losses)}"
            )
        # Facts of the terms, which for a single loss are its class's.
        self.wants = tuple(kinds)
        self.outputs_per_target = losses[0].outputs_per_target
        self.n_views = max(loss.n_views for loss in losses)
        self.term_names = tuple(self.terms)

    @property
    def card(self) -> Card | None:
        """What follows from the cards of the terms; None if one has none."""
        every = [term for term in self.terms.values() if isinstance(term, Term)]
        counted = [term for term in every if float(term.weight) > 0] or every
        terms = [(float(term.weight), term.loss, term.loss.card) for term in counted]
        cards = [card for _, _, card in terms if card is not None]
        if len(cards) < len(terms):
            return None
        steepness = list(Slope)
        nears, fars = ([card.near for card in cards if card.near], [card.far for card in cards if card.far])
        return Card(
            formula=" + ".join(f"{weight:g} \\cdot ({card.formula})" for weight, _, card in terms if card),
            plain=" + ".join(f"{weight:g} · ({card.plain})" for weight, _, card in terms if card),
            source="; ".join(dict.fromkeys(card.source for card in cards)),
            near=max(nears, key=steepness.index) if len(nears) == len(cards) else None,
            far=max(fars, key=steepness.index) if len(fars) == len(cards) else None,
            convex=True if all(card.convex for card in cards) else None,
            low=None,  # the terms need not be least, or greatest, at the same outputs
            high=None,
            uniform=_summed(terms, "uniform"),
            symmetric=_summed(terms, "symmetric"),
            shift_invariant=all(card.shift_invariant for card in cards),
            overflows_at=min(card.overflows_at for card in cards),
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C · views), a target that all terms take → (N,)."""
        return self._add(self._scores(outputs, target))

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """The sums of scores and weights of a batch, and of each term by itself."""
        scores = self._scores(*self._fitting(outputs, target))
        value = self._add(scores)
        terms = {name: score.detach().sum() for name, score in scores.items()}
        return Total(value.sum(), self.example_weight(target).to(value.dtype).sum(), terms)

    def example_weight(self, target: Tensor) -> Tensor:
        """That of the terms, which is one and the same → (N,)."""
        return self._first.example_weight(target)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """As the first term says → (N, C)."""
        return self._first.to_probabilities(outputs)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """As the first term says → (N, C) or (N, D)."""
        return self._first.to_predictions(outputs)

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:
        """What the term that looks at more than the outputs must see → (N, C · views)."""
        looks = [loss for loss in self._losses if loss.n_views > 1]
        return looks[0].loss_inputs(outputs, inputs, network) if looks else outputs

    def set_class_counts(self, counts: Tensor) -> None:
        """To each term."""
        for loss in self._losses:
            loss.set_class_counts(counts)

    @property
    def _losses(self) -> list[Loss]:
        return [term.loss for term in self.terms.values() if isinstance(term, Term)]

    @property
    def _first(self) -> Loss:
        return self._losses[0]

    def _scores(self, outputs: Tensor, target: Tensor) -> dict[str, Tensor]:
        # The network's own outputs come first: a term that looks at no more gets no more.
        own = outputs.shape[-1] // self.n_views
        return {
            name: loss.score(outputs[..., : own * loss.n_views], target)
            for name, loss in zip(self.terms, self._losses, strict=True)
        }

    def _add(self, scores: Mapping[str, Tensor]) -> Tensor:
        weights = [term.weight for term in self.terms.values() if isinstance(term, Term)]
        return torch.stack([weight * score for weight, score in zip(weights, scores.values(), strict=True)]).sum(0)


def _names(losses: list[Loss]) -> str:
    return ", ".join(type(loss).__name__ for loss in losses)


def _weighting(loss: Loss) -> object:
    """What decides how examples are weighted, comparable between losses."""
    if not isinstance(loss, ClassLoss):
        return None, -100
    weight = None if loss.weight is None else tuple(loss.weight.tolist())
    return weight or loss.rule, loss.ignore_index


def _summed(terms: list[tuple[float, Loss, Card | None]], fact: str) -> str | None:
    """The sum of a fact that is a formula, with the numbers of each term in the place of its hyperparameters."""
    parts = []
    for weight, loss, card in terms:
        formula: str | None = getattr(card, fact)
        if formula is None:
            return None
        if formula == "0":
            continue
        for name in loss.hyperparameters:
            formula = re.sub(rf"\b{name}\b", f"({float(getattr(loss, name))!r})", formula)
        parts.append(f"{weight!r} * ({formula})")
    return " + ".join(parts) or "0"
