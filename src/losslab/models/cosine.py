"""`CosineLinear`, a last layer whose outputs are cosines, for losses with `cosine_outputs`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.errors import LabError

_MIN_NORM = 1e-6
"""Lower limit of norms, because the gradient of v / |v| grows without bound as |v| approaches 0."""


class CosineLinear(nn.Linear):
    """Computes the cosines (N, C) of the angles between features (N, F) and the C rows of the weight, in [-1, 1].

    There is no bias. Features that are all 0 give outputs of 0. Half precision is converted to float32.
    """

    def __init__(
        self, in_features: int, out_features: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(in_features, out_features, bias=False, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's name
        """Return the cosines (N, C) of features (N, F)."""
        # Losses multiply cosines by 20 or 30, and with them the rounding errors of half precision.
        precision = torch.promote_types(input.dtype, torch.float32)
        features = F.normalize(input.to(precision), dim=1, eps=_MIN_NORM)
        return F.linear(features, F.normalize(self.weight.to(precision), dim=1, eps=_MIN_NORM))


def with_cosine_outputs(network: nn.Module) -> nn.Module:
    """Replace the last nn.Linear of a network by a CosineLinear with its weight, and return the network.

    The network is changed in place, unless it is the nn.Linear itself. No random numbers are drawn, so the initial
    weights do not change. If the network has an `output_scale`, it is set to 1.

    Raises:
        LabError: the last layer is not linear.
    """
    names = [name for name, module in network.named_modules() if not list(module.children())]
    last = network.get_submodule(names[-1])
    if not isinstance(last, nn.Linear):
        raise LabError(
            f"this loss needs cosine outputs, so the network must end in an nn.Linear, but {type(network).__name__} "
            f"ends in {type(last).__name__}: choose another model or another loss"
        )
    cosine: CosineLinear = nn.utils.skip_init(CosineLinear, last.in_features, last.out_features)
    cosine.weight = last.weight
    if hasattr(network, "output_scale"):
        network.output_scale = 1.0  # type: ignore[assignment]  # mypy expects a module
    parent, _, name = names[-1].rpartition(".")
    if not name:
        return cosine
    setattr(network.get_submodule(parent), name, cosine)
    return network
