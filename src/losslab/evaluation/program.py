"""The network of a run as others want it: from pixels to probabilities, with nothing to prepare and nothing to know."""

import torch
from torch import Tensor, nn

from losslab.data.knowledge import Knowledge
from losslab.learner import Learner
from losslab.metrics import normalised
from losslab.targets import Task


class Program(nn.Module):
    """Preparation, network and the meaning of its outputs in one module, on whose inputs nobody can go wrong.

    Args:
        learner: a network and its loss, which says what the outputs mean.
        known: how images that are bytes are normalised.
        raw: give the network's own outputs instead of what they mean.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, learner: Learner, known: Knowledge, *, raw: bool = False) -> None:
        super().__init__()
        self.network, self.loss, self.facts, self.raw = learner.network, learner.loss, learner.facts, raw
        self.dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), torch.float32)
        normalise = known.normalise
        for name in ("scale", "shift"):
            value = None if normalise is None else getattr(normalise, name).float().view(1, -1, 1, 1)
            self.register_buffer(name, value)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """What each input is taken for.

        Args:
            inputs: of images, uint8 pixels (N, channels, H, W) where `known` normalises them; else what the network
                was trained on, (N, ...).

        Returns:
            Probabilities (N, C) that sum to 1, those of independent labels (N, K), or values (N, D).
        """
        if self.scale is not None and self.shift is not None:
            inputs = torch.addcmul(self.shift, inputs.float(), self.scale)
        outputs: Tensor = self.network(inputs.to(self.dtype))
        if self.raw:
            return outputs
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if self.facts.task is Task.REGRESSION:
            return self.loss.to_predictions(outputs)
        probabilities = self.loss.to_probabilities(outputs)
        return normalised(probabilities) if self.facts.task is Task.MULTICLASS else probabilities.clamp(max=1)
