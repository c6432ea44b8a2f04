"""torchvision: detection losses."""

import torch
from torchvision import ops

from audits.finding import Evidence, Severity, finding
from audits.measure import focal, precision, say, value_and_gradient


@finding(
    "torchvision.ops.sigmoid_focal_loss",
    claim="-α (1 - p)^γ log p for every γ ≥ 0, whose gradient is 0 at p = 1",
    source="Lin et al., Focal loss for dense object detection, 2017",
    severity=Severity.NOT_FINITE,
    losslab="focal and sigmoid_focal compute (1 - p)^γ as exp(γ log(1 - p))",
)
def gradient_below_gamma_one() -> Evidence:
    """For 0 < γ < 1, the gradient of a confident correct example (logit ≥ 17) is NaN, and so is the whole step."""
    value, gradient = value_and_gradient(
        lambda z: ops.sigmoid_focal_loss(z, torch.ones_like(z), alpha=-1, gamma=0.5), [5.0, 17.0, 20.0]
    )
    seen = f"γ = 0.5, target 1, z = 5, 17, 20: value {say(value)}; gradient {say(gradient)}"
    return Evidence(seen, holds=bool(gradient.isnan().any()))


@finding(
    "torchvision.ops.sigmoid_focal_loss",
    claim="-α (1 - p)^γ log p",
    source="Lin et al., Focal loss for dense object detection, 2017",
    severity=Severity.WRONG_VALUE,
    losslab="sigmoid_focal computes with log σ(z) and log σ(-z), in at least float32",
)
def focal_cancels() -> Evidence:
    """1 - p is a subtraction, so the loss of a confident example is off by about 10 %, or 0, far from underflow."""
    parts = []
    for dtype, logit in ((torch.float32, 15.0), (torch.float32, 20.0), (torch.float16, 8.0)):
        value, _ = value_and_gradient(
            lambda z: ops.sigmoid_focal_loss(z, torch.ones_like(z), alpha=-1, gamma=0.5), [logit], dtype
        )
        parts.append((f"{precision(dtype)} z = {logit:g}", float(value), focal(logit, 0.5)))
    seen = "γ = 0.5, " + "; ".join(f"{at}: {say(got)}, exactly {say(exact)}" for at, got, exact in parts)
    return Evidence(seen, holds=any(abs(got / exact - 1) > 0.05 for _, got, exact in parts))


@finding(
    "torchvision.ops.complete_box_iou_loss",
    claim="1 - IoU + distance + α v for any two boxes; v compares arctan(w/h)",
    source="Zheng et al., Distance-IoU loss, 2020; eps is documented to prevent division by zero",
    severity=Severity.NOT_FINITE,
    losslab="not in the catalog; the losses of the catalog are finite for all finite outputs",
)
def box_without_height() -> Evidence:
    """A predicted box of height 0 has a finite loss and a NaN gradient, because eps does not protect w/h."""
    target = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    value, gradient = value_and_gradient(lambda box: ops.complete_box_iou_loss(box, target), [[0.0, 0.0, 1.0, 0.0]])
    point, _ = value_and_gradient(lambda box: ops.complete_box_iou_loss(box, target), [[0.0, 0.0, 0.0, 0.0]])
    seen = f"box of height 0: value {say(value)}, gradient {say(gradient)}; box that is a point: value {say(point)}"
    return Evidence(seen, holds=not bool(gradient.isfinite().all()))


FINDINGS = (gradient_below_gamma_one, focal_cancels, box_without_height)
