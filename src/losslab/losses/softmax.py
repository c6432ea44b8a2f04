"""Softmax probabilities, exact in both tails: what losses of p are made of."""

import torch
from torch import Tensor


def log_softmax_tails(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of p and of 1 - p for p = softmax(outputs), to full relative precision: (N, C) → twice (N, C).

    torch's log-softmax rounds log p to 0, and its gradient with it, as soon as 1 - p is below the resolution of 1, at a
    margin of 17 in float32. Here everything is written in the distances from the largest output, so that neither the
    probability of a sure class nor that of an impossible one, nor their gradients, cancel.
    """
    top = outputs.argmax(1, keepdim=True)
    is_top = torch.zeros_like(outputs, dtype=torch.bool).scatter(1, top, value=True)
    # Of the largest from itself it is the constant 0, lest a gradient of 1 be added and taken away again.
    distance = (outputs - outputs.gather(1, top)).masked_fill(is_top, 0)
    # The odds of all others together against the largest: p_top = 1 / (1 + odds).
    log_odds = torch.logsumexp(distance.masked_fill(is_top, -torch.inf), dim=1, keepdim=True)
    log_p = distance - torch.log1p(log_odds.exp())
    # where() differentiates both sides: the side not taken must be finite too, or its NaN would spread.
    small = torch.log1p(-log_p.masked_fill(is_top, -torch.inf).exp())
    return log_p, torch.where(is_top, log_odds + log_p, small)


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """A number as a 0-dim tensor of another's type and device; filled in there, not copied, so nothing waits → ()."""
    return value.to(like) if isinstance(value, Tensor) else like.new_full((), value)
