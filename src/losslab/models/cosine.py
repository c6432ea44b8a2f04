"""A last layer whose outputs are cosines, for losses that ask for them (`Loss.cosine_outputs`)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.errors import LabError

_SHORTEST = 1e-6
"""Shorter features or weights are not stretched to length 1: the gradient would grow without bound towards length 0."""


class CosineLinear(nn.Linear):
    """Cosines of the angles between the features and the weight rows: features (N, F) → (N, C), in [-1, 1].

    No bias. Features of zeros give zeros. Half precision is raised to float32.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=False, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's name
        """(N, F) → (N, C)."""
        # Losses multiply cosines by 20 or 30, and half precision's rounding with them.
        precision = torch.promote_types(input.dtype, torch.float32)
        features = F.normalize(input.to(precision), dim=1, eps=_SHORTEST)
        return F.linear(features, F.normalize(self.weight.to(precision), dim=1, eps=_SHORTEST))


def with_cosine_outputs(network: nn.Module) -> nn.Module:
    """The network with its last nn.Linear replaced by a CosineLinear of the same weight.

    Nothing is drawn, so the weights are those the network had, and a checkpoint fits a network that was built the same
    way. A network that multiplies its outputs by an `output_scale` of its own does so no longer.

    Raises:
        LabError: the network does not end in an nn.Linear.
    """
    names = [name for name, module in network.named_modules() if not list(module.children())]
    last = network.get_submodule(names[-1])
    if not isinstance(last, nn.Linear):
        raise LabError(
            f"this loss wants cosines, which replace a last nn.Linear, but {type(network).__name__} ends in "
            f"{type(last).__name__}: choose another model or another loss"
        )
    cosine: CosineLinear = nn.utils.skip_init(CosineLinear, last.in_features, last.out_features)
    cosine.weight = last.weight
    if hasattr(network, "output_scale"):
        network.output_scale = 1.0  # type: ignore[assignment]  # the checker takes any attribute for a module
    parent, _, name = names[-1].rpartition(".")
    if not name:
        return cosine
    setattr(network.get_submodule(parent), name, cosine)
    return network
