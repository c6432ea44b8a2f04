"""Weighted sum of losses."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.base import ClassLoss, Loss, Total
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import HasHyperparameters, argument, hyperparameter


class Term(HasHyperparameters):
    """A loss and its weight in a sum."""

    loss: Loss = argument()
    weight: float | Tensor = hyperparameter(
        "the weight of the term", "[0, inf)", "the configuration's", (), default=1.0
    )

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise LabError(f"a term of a weighted_sum needs a loss, got {self.loss!r}")


class WeightedSum(Loss):
    """Σ_i λ_i L_i(z, t). Each term is logged unweighted, as train/loss/NAME.

    Args:
        terms: by name, {"loss": a Loss, "weight": λ ≥ 0}. All get the same targets, so they must share a kind of target
            and have the same class weights.

    Raises:
        LabError: there are no terms, or they are incompatible.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        for name, term in terms.items():
            if not isinstance(term, Mapping) or set(term) - {"loss", "weight"}:
                raise LabError(f"a term of a weighted_sum has a loss and a weight, and nothing else: see terms.{name}")
        self.terms = nn.ModuleDict({name: Term(**term) for name, term in terms.items()})
        losses = self._losses
        kinds = [kind for kind in losses[0].wants if all(kind in loss.wants for loss in losses)] if losses else []
        if not kinds:
            raise LabError(f"weighted_sum needs terms that take one kind of target: got {_names(losses) or 'none'}")
        if len({_weighting(loss) for loss in losses}) > 1 or len({loss.outputs_per_target for loss in losses}) > 1:
            raise LabError(
                "the terms of a weighted_sum must have the same weight, ignore_index and number of outputs per target: "
                f"{_names(losses)} differ"
            )
        if len([loss for loss in losses if loss.n_views > 1]) > 1:
            raise LabError(
                f"only one term of a weighted_sum can score more than the network's outputs: {_names(losses)}"
            )
        # Attributes of the class in a single loss; here they depend on the terms.
        self.wants = tuple(kinds)
        self.outputs_per_target = losses[0].outputs_per_target
        self.n_views = max(loss.n_views for loss in losses)
        self.term_names = tuple(self.terms)

    @property
    def card(self) -> Card | None:
        weighted = [term for term in self._terms if float(term.weight) > 0] or self._terms
        terms = [(float(term.weight), term.loss, term.loss.card) for term in weighted]
        cards = [card for _, _, card in terms if card is not None]
        if len(cards) < len(terms):
            return None
        steepness = list(Slope)  # in this order
        nears, fars = ([card.near for card in cards if card.near], [card.far for card in cards if card.far])
        return Card(
            formula=" + ".join(f"{weight:g} \\cdot ({card.formula})" for weight, _, card in terms if card),
            plain=" + ".join(f"{weight:g} · ({card.plain})" for weight, _, card in terms if card),
            source="; ".join(dict.fromkeys(card.source for card in cards)),
            near=max(nears, key=steepness.index) if len(nears) == len(cards) else None,
            far=max(fars, key=steepness.index) if len(fars) == len(cards) else None,
            convex=True if all(card.convex for card in cards) else None,
            low=None,  # the terms need not have their extremes at the same outputs
            high=None,
            uniform=_weighted_formula(terms, "uniform"),
            symmetric=_weighted_formula(terms, "symmetric"),
            shift_invariant=all(card.shift_invariant for card in cards),
            overflows_at=min(card.overflows_at for card in cards),
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, n_views C), a target that all terms take → (N,)."""
        return self._add(self._scores(outputs, target))

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """The sums of scores and weights of a batch, and of each term separately."""
        scores = self._scores(*self._prepare(outputs, target))
        value = self._add(scores)
        terms = {name: score.detach().sum() for name, score in scores.items()}
        return Total(value.sum(), self.example_weight(target).to(value.dtype).sum(), terms)

    def example_weight(self, target: Tensor) -> Tensor:
        """The example weight that all terms share → (N,)."""
        return self._first.example_weight(target)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The probabilities of the first term → (N, C)."""
        return self._first.to_probabilities(outputs)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """The predictions of the first term → (N, C) or (N, D)."""
        return self._first.to_predictions(outputs)

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:
        """The inputs of the term with several views, if there is one → (N, n_views C)."""
        for loss in self._losses:
            if loss.n_views > 1:
                return loss.loss_inputs(outputs, inputs, network)
        return outputs

    def set_class_counts(self, counts: Tensor) -> None:
        """Pass the counts on to each term."""
        for loss in self._losses:
            loss.set_class_counts(counts)

    @property
    def _terms(self) -> list[Term]:
        return [term for term in self.terms.values() if isinstance(term, Term)]

    @property
    def _losses(self) -> list[Loss]:
        return [term.loss for term in self._terms]

    @property
    def _first(self) -> Loss:
        return self._losses[0]

    def _scores(self, outputs: Tensor, target: Tensor) -> dict[str, Tensor]:
        # The network's own outputs come first: a term with one view gets only those.
        columns = outputs.shape[-1] // self.n_views
        return {
            name: loss.score(outputs[..., : columns * loss.n_views], target)
            for name, loss in zip(self.terms, self._losses, strict=True)
        }

    def _add(self, scores: Mapping[str, Tensor]) -> Tensor:
        weighted = [term.weight * score for term, score in zip(self._terms, scores.values(), strict=True)]
        return torch.stack(weighted).sum(0)


def _names(losses: list[Loss]) -> str:
    return ", ".join(type(loss).__name__ for loss in losses)


def _weighting(loss: Loss) -> object:
    """The settings by which a loss weights examples, comparable between losses."""
    if not isinstance(loss, ClassLoss):
        return None, -100
    weight = None if loss.weight is None else tuple(loss.weight.tolist())
    return weight or loss.weight_rule, loss.ignore_index


def _weighted_formula(terms: list[tuple[float, Loss, Card | None]], fact: str) -> str | None:
    """The weighted sum of a fact that is a formula, with hyperparameters replaced by their values."""
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
