"""Losses made of other losses: a weighted sum, and label smoothing."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.base import ClassLoss, Loss, Total
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import HasHyperparameters, argument, hyperparameter
from losslab.targets import Kind


class Term(HasHyperparameters):
    """A term of a weighted sum: a loss and its weight."""

    loss: Loss = argument()
    weight: float | Tensor = hyperparameter(
        "the weight of the term", "[0, inf)", "the configuration's", (), default=1.0
    )

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise LabError(f"a term of a weighted_sum must contain a loss, got {self.loss!r}")


class WeightedSum(Loss):
    """The weighted sum Σ_i λ_i L_i(z, t). Each L_i is logged as train/loss/NAME, not multiplied by its weight λ_i.

    Args:
        terms: a mapping from names to {"loss": a Loss, "weight": λ ≥ 0}. All losses get the same outputs and target, so
            they must accept the same kind of target and have the same class weights.

    Raises:
        LabError: there are no terms, or they are incompatible.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        for name, term in terms.items():
            if not isinstance(term, Mapping) or set(term) - {"loss", "weight"}:
                raise LabError(f"terms.{name} of a weighted_sum must be a mapping with the keys loss and weight only")
        self.terms = nn.ModuleDict({name: Term(**term) for name, term in terms.items()})
        losses = self._losses
        names = ", ".join(type(loss).__name__ for loss in losses) or "none"
        kinds = [kind for kind in losses[0].wants if all(kind in loss.wants for loss in losses)] if losses else []
        if not kinds:
            raise LabError(f"weighted_sum needs terms that accept the same kind of target: got {names}")
        if len({_weighting(loss) for loss in losses}) > 1 or len({loss.outputs_per_target for loss in losses}) > 1:
            raise LabError(
                "the losses of a weighted_sum must have the same class weights, ignore_index and number of outputs per "
                f"target: got {names}"
            )
        if len([loss for loss in losses if loss.n_views > 1]) > 1:
            raise LabError(f"only one loss of a weighted_sum can need a teacher or a second view: got {names}")
        # In other losses these are attributes of the class. Here they depend on the terms.
        self.wants = tuple(kinds)
        self.outputs_per_target = losses[0].outputs_per_target
        self.n_views = max(loss.n_views for loss in losses)
        self.term_names = tuple(self.terms)

    @property
    def card(self) -> Card | None:
        nonzero = [term for term in self._terms if float(term.weight) > 0] or self._terms
        terms = [(float(term.weight), term.loss, term.loss.card) for term in nonzero]
        cards = [card for _, _, card in terms if card is not None]
        if len(cards) < len(terms):
            return None
        steepness = list(Slope)  # Slope lists its members from the flattest to the steepest
        nears = [card.near for card in cards if card.near]
        fars = [card.far for card in cards if card.far]
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
        """Compute the scores (N,) from outputs (N, n_views · C) and a target that all terms accept."""
        return self._add(self._scores(outputs, target))

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """Return the sums of the scores and weights of a batch, and the sum of each term."""
        scores = self._scores(*self._prepare(outputs, target))
        value = self._add(scores)
        terms = {name: score.detach().sum() for name, score in scores.items()}
        return Total(value.sum(), self.example_weight(target).to(value.dtype).sum(), terms)

    def example_weight(self, target: Tensor) -> Tensor:
        """Return the weight of each example (N,), which is the same in all terms."""
        return self._losses[0].example_weight(target)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probabilities (N, C) that the outputs mean under the first term."""
        return self._losses[0].to_probabilities(outputs)

    def to_logits(self, outputs: Tensor) -> Tensor | None:
        """Return the logits (N, C) of the first term, or None if it has none."""
        return self._losses[0].to_logits(outputs)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Return the predictions, (N, C) or (N, D), that the outputs mean under the first term."""
        return self._losses[0].to_predictions(outputs)

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:
        """Return the tensor (N, n_views · C) for the term with several views, or the outputs if there is none."""
        for loss in self._losses:
            if loss.n_views > 1:
                return loss.loss_inputs(outputs, inputs, network)
        return outputs

    def set_class_counts(self, counts: Tensor) -> None:
        """Pass the class counts to the loss of each term."""
        for loss in self._losses:
            loss.set_class_counts(counts)

    @property
    def _terms(self) -> list[Term]:
        return [term for term in self.terms.values() if isinstance(term, Term)]

    @property
    def _losses(self) -> list[Loss]:
        return [term.loss for term in self._terms]

    def _scores(self, outputs: Tensor, target: Tensor) -> dict[str, Tensor]:
        # The network's own outputs come first; a term with one view gets only these.
        columns = outputs.shape[-1] // self.n_views
        return {
            name: loss.score(outputs[..., : columns * loss.n_views], target)
            for name, loss in zip(self.terms, self._losses, strict=True)
        }

    def _add(self, scores: Mapping[str, Tensor]) -> Tensor:
        weighted = [term.weight * score for term, score in zip(self._terms, scores.values(), strict=True)]
        return torch.stack(weighted).sum(0)


def _weighting(loss: Loss) -> object:
    """Return class weights and ignored index of a loss in a form that `==` can compare."""
    if not isinstance(loss, ClassLoss):
        return None, -100
    weight = None if loss.weight is None else tuple(loss.weight.tolist())
    return weight or loss.weight_rule, loss.ignore_index


def _weighted_formula(terms: list[tuple[float, Loss, Card | None]], fact: str) -> str | None:
    """Return the formula Σ_i λ_i F_i, where F_i is the field `fact` of the card of term i; None if a card lacks it."""
    parts = []
    for weight, loss, card in terms:
        formula: str | None = getattr(card, fact)
        if formula is None:
            return None
        if formula == "0":
            continue
        for name in loss.hyperparameters:  # the names in two terms may be the same, so values replace them
            formula = re.sub(rf"\b{name}\b", f"({float(getattr(loss, name))!r})", formula)
        parts.append(f"{weight!r} * ({formula})")
    return " + ".join(parts) or "0"


class Smoothed(Loss):
    """Label smoothing: L(z, (1 - ε) t + ε/C) of any loss L of class probabilities that has no class weights."""

    wants = (Kind.PROBABILITIES,)
    loss: Loss = argument()
    epsilon: float | Tensor = hyperparameter(
        "ε, the share of the target that is spread over all classes",
        "[0, 1]",
        "the paper's",
        (0.0, 0.1, 0.3),
        default=0.1,
    )

    def __post_init__(self) -> None:
        loss = self.loss
        if Kind.PROBABILITIES not in loss.wants or loss.n_views * loss.outputs_per_target > 1:
            raise LabError(
                f"smoothed needs a loss of class probabilities with one set of outputs: got {type(loss).__name__}"
            )
        if getattr(loss, "weight", None) is not None or getattr(loss, "weight_rule", None) is not None:
            raise LabError("smoothed needs a loss without class weights: they would move its minimum off the target")

    @property
    def card(self) -> Card | None:
        inner = self.loss.card
        if inner is None:
            return None
        return Card(
            formula=rf"L(z, (1 - \varepsilon) t + \varepsilon / K), \quad L(z, t) = {inner.formula}",
            plain=f"L(z, (1 - ε) t + ε/K) with L(z, t) = {inner.plain}",
            source=f"Szegedy et al., Rethinking the Inception architecture for computer vision, 2016; {inner.source}",
            near=None,
            far=None,
            convex=True if inner.convex else None,
            low=None,
            high=None,
            shift_invariant=inner.shift_invariant,
            note="The loss is lowest at the smoothed target, so the best probability of the label is less than 1. "
            "Class weights are not possible, because they would move the minimum away from the smoothed target.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        smooth = (1 - self.epsilon) * target + self.epsilon / target.shape[1]
        return self.loss.score(outputs, smooth)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probabilities (N, C) that the outputs mean under the inner loss."""
        return self.loss.to_probabilities(outputs)

    def to_logits(self, outputs: Tensor) -> Tensor | None:
        """Return the logits (N, C) of the inner loss, or None if it has none."""
        return self.loss.to_logits(outputs)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Return the predictions (N, C) that the outputs mean under the inner loss."""
        return self.loss.to_predictions(outputs)
