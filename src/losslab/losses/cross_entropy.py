"""Cross-entropy with all options of torch's, the KL divergence, Poly-1, and knowledge distillation."""

from typing import Any

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.base import ClassLoss, Loss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.numerics import log_softmax_tails
from losslab.targets import Kind


class CrossEntropy(ClassLoss):
    """Cross-entropy: -Σ_k w_k t_k log p_k with p = softmax(z); for a class index, -w_y log p_y.

    It is the negative log-likelihood of a categorical model; with weights of 1, ∂/∂z = p - t. It equals
    F.cross_entropy, but is written out, because the label smoothing (Szegedy et al. 2016) may be a tensor.
    """

    weight: Any = argument(default=None)  # the first argument, as in torch
    label_smoothing: float | Tensor = hyperparameter(
        "ε, the share of the target that is spread over all classes: (1 - ε) t + ε/K",
        "[0, 1]",
        "torch's 0; Szegedy et al. use 0.1",
        (0.0, 0.1, 0.3),
        default=0.0,
    )

    @property
    def card(self) -> Card:
        formula, plain = r"-\log p_y", "-log p_y"
        source, near, low = "Good, Rational decisions, 1952", Slope.FADES, "0"
        is_smoothed = float(self.label_smoothing) > 0
        if is_smoothed:
            formula = r"-\sum_k \Bigl((1 - \varepsilon) t_k + \frac{\varepsilon}{K}\Bigr) \log p_k"
            plain = "-(1 - ε) log p_y - (ε/K) Σ_k log p_k"
            source = "Szegedy et al., Rethinking the Inception architecture for computer vision, 2016"
            near = Slope.STAYS
            others = "label_smoothing * (K - 1) / K"  # the smoothed probability of all other classes
            low = f"-(1 - {others}) * log(1 - {others}) - {others} * log(label_smoothing / K)"
        return Card(
            formula=formula,
            plain=plain,
            source=source,
            near=near,
            far=Slope.STAYS,
            convex=True,
            low=low,
            uniform="log(K)",
            shift_invariant=True,
            proper=not is_smoothed and self.weight is None,
            note="The gradient at each logit is p - t: it is at most 1, however wrong the output is.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return -torch.log_softmax(outputs, dim=1)

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        costs = self.weighted(self.classwise(outputs))
        scores = self.pick(costs, target)
        if not isinstance(self.label_smoothing, Tensor) and self.label_smoothing == 0:
            return scores  # the formula below would give 0 · ∞ = NaN for a class with a logit of -inf
        smoothed = (1 - self.label_smoothing) * scores + self.label_smoothing * costs.mean(1)
        return smoothed if target.dtype.is_floating_point else smoothed.where(target != self.ignore_index, 0)


class KLDiv(Loss):
    """Kullback-Leibler divergence KL(t ‖ p) = Σ_k t_k log(t_k / p_k) with p = softmax(z).

    It is cross-entropy minus the entropy of the target, with the same gradients, and is 0 at p = t. The outputs are
    logits. The mean is over examples (reduction="batchmean" of torch), not over elements.
    """

    wants = (Kind.PROBABILITIES,)

    card = Card(
        formula=r"\sum_k t_k \log \frac{t_k}{p_k}",
        plain="Σ_k t_k log(t_k / p_k)",
        source="Kullback & Leibler, On information and sufficiency, 1951",
        far=Slope.STAYS,
        convex=True,
        uniform="log(K)",
        shift_invariant=True,
        proper=True,
    )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        # Written out, because F.kl_div fails under torch.func.vmap. xlogy defines 0 log 0 as 0.
        return (torch.xlogy(target, target) - target * torch.log_softmax(outputs, dim=1)).sum(1)


class Poly1(ClassLoss):
    """Poly-1 loss: -log p_y + ε (1 - p_y).

    Cross-entropy is Σ_j (1 - p_y)^j / j; Poly-1 changes the first coefficient to 1 + ε. At ε = 0 it is cross-entropy.
    """

    epsilon: float | Tensor = hyperparameter(
        "ε, which is added to the first coefficient of cross-entropy",
        "[-1, inf)",
        "the paper's for ImageNet, according to optax; the paper uses -1 for detection",
        (-1.0, 0.0, 1.0, 2.0),
        default=2.0,
    )

    @property
    def card(self) -> Card:
        epsilon = float(self.epsilon)
        return Card(
            formula=r"-\log p_y + \varepsilon (1 - p_y)",
            plain="-log p_y + ε (1 - p_y)",
            source="Leng et al., PolyLoss: a polynomial expansion perspective of classification loss functions, 2022",
            far=Slope.STAYS,
            convex=epsilon <= 1,
            uniform="log(K) + epsilon * (K - 1) / K",
            shift_invariant=True,
            proper=epsilon == 0 and self.weight is None,
            note="A positive ε makes the network overconfident, a negative ε underconfident. The gradient is up to 1 + "
            "ε times that of cross-entropy.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_one_minus_p = log_softmax_tails(outputs)
        one_minus_p = log_one_minus_p.exp()
        # The loss is (1 + ε) (1 - p) + higher powers of 1 - p. Where 1 - p is small, -log p - (1 - p) loses digits.
        higher = torch.where(one_minus_p < 0.1, _higher_powers(one_minus_p), -log_p - one_minus_p)
        return (1 + self.epsilon) * one_minus_p + higher


def _higher_powers(x: Tensor) -> Tensor:
    """Return x²/2 + x³/3 + ... + x¹⁷/17, which is -log(1 - x) - x in float64 precision for x < 0.1."""
    total = torch.zeros_like(x)
    for power in range(17, 1, -1):
        total = total * x + 1 / power
    return total * x.square()


class Distillation(Loss):
    """Knowledge distillation: T² KL(softmax(v/T) ‖ softmax(z/T)) of a student's logits z and a teacher's logits v.

    The target is not used. The factor T² keeps the size of the gradient about the same at every T. Combine this loss
    with cross-entropy in a WeightedSum, as conf/loss/distillation.yaml does.

    Args:
        teacher: a trained network that `loss_inputs` calls to get the teacher's logits (N, C); None if you pass the
            logits of student and teacher, (N, 2C), to the loss yourself.
    """

    wants = (Kind.INDEX, Kind.PROBABILITIES)
    n_views = 2
    temperature: float | Tensor = hyperparameter(
        "T, the temperature of both softmaxes; a high T gives small probabilities more weight",
        "(0, inf)",
        "the paper uses 2.5 to 20",
        (1.0, 4.0),
        default=4.0,
    )
    teacher: nn.Module | None = argument(default=None)

    def __post_init__(self) -> None:
        teacher = self.teacher
        del self.teacher
        # A module in a tuple is not a submodule, so the teacher's weights are not trained, counted or saved.
        self._teacher = () if teacher is None else (teacher.eval().requires_grad_(requires_grad=False),)

    card = Card(
        formula=r"T^2 \sum_k q_k \log \frac{q_k}{p_k}, \quad "
        r"q = \mathrm{softmax}(v / T), \; p = \mathrm{softmax}(z / T)",
        plain="T² Σ_k q_k log(q_k / p_k) with q = softmax(v/T) of the teacher and p = softmax(z/T)",
        source="Hinton, Vinyals & Dean, Distilling the knowledge in a neural network, 2015",
        near=Slope.STAYS,
        far=Slope.STAYS,
        convex=False,
        uniform="0",
        shift_invariant=True,
        proper=False,
        note="It does not use the labels, only the outputs of the teacher. It is convex in the student's logits, but "
        "not in both logits together.",
    )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002 -- the teacher replaces it
        """Compute the scores (N,) from the logits of student and teacher (N, 2C)."""
        student, teacher = (outputs / self.temperature).chunk(2, dim=1)
        log_q = torch.log_softmax(teacher, dim=1)
        divergence = (log_q.exp() * (log_q - torch.log_softmax(student, dim=1))).sum(1)
        return self.temperature**2 * divergence

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:  # noqa: ARG002 -- the base's
        """Return the student's and the teacher's logits (N, 2C). Raise LabError without a teacher with C outputs."""
        if not self._teacher:
            raise LabError("distillation needs a teacher: teacher=RUN_FOLDER")
        teacher = self._teacher[0].to(inputs)
        with torch.no_grad():
            logits = teacher(inputs)
        if logits.shape != outputs.shape:
            raise LabError(
                f"the teacher has {logits.shape[1]} outputs and the student {outputs.shape[1]}: use the same data set"
            )
        return torch.cat([outputs, logits.to(outputs.dtype)], dim=1)
