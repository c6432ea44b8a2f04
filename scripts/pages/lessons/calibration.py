"""Lessons on calibration: do the predicted probabilities agree with the observed frequencies?"""

from pages.lessons import curves
from pages.lessons.lesson import Claim, Lesson, Panel

_METRICS = ("test/ece", "test/nll")
_BAND = "bars: 95 % interval of the accuracy"
_BLURRED = "Digits of 2×2 pixels (60 % test accuracy, n = 5 seeds): cross-entropy is overconfident"
_SHARP = "Digits of 8×8 pixels (98 % test accuracy, n = 5 seeds): cross-entropy is well calibrated"


def _reliability(within: str) -> curves.CurvesSpec:
    return curves.CurvesSpec(
        "confidence (probability of the predicted class)",
        "accuracy (share of correct predictions)",
        curves.reliability_curve,
        _BAND,
        within=within,
        diagonal=True,
        markers=True,
    )


FOCAL = Lesson(
    name="focal_and_calibration",
    title="Focal loss lowers confidence, which improves or worsens calibration",
    finding="After long training the network is overconfident; focal loss improves its calibration",
    panels=(
        Panel(
            "After 40 epochs: cross-entropy is overconfident",
            "loss.gamma=0.0",
            _METRICS,
            (Claim("loss.gamma=2.0", "test/ece", "better"), Claim("loss.gamma=5.0", "test/ece", "better")),
            within="trainer.max_epochs=40",
        ),
        Panel(
            "After 8 epochs: cross-entropy is not overconfident",
            "loss.gamma=0.0",
            _METRICS,
            (Claim("loss.gamma=2.0", "test/ece", "worse"), Claim("loss.gamma=5.0", "test/ece", "worse")),
            within="trainer.max_epochs=8",
        ),
    ),
    curves=_reliability("trainer.max_epochs=40"),
    observation="In the figure, points below the diagonal are overconfident: the confidence is higher than the "
    "accuracy. After long training, γ = 0 (cross-entropy) is below the diagonal and γ = 2 is close to it. After a "
    "fifth of the training the network is not overconfident, and the same γ increases the calibration error. Focal "
    "loss lowers the confidence in both cases; it does not calibrate a network in general.",
    explanation="The factor (1 - p)^γ reduces the weight of examples that are already classified with high confidence, "
    "so p is not driven all the way to 1. Focal loss is not a proper scoring rule: if the true probability is q, its "
    "expected value is minimal at a p that is closer to 1/2 than q. It lowers the confidence whether or not the "
    "network is overconfident.",
    suggestions="`callbacks=anneal callbacks.anneal.parameter=gamma callbacks.anneal.end=0`, so that training ends "
    "with cross-entropy, a proper scoring rule; `data.size=8`, where 98 % of the predictions are correct; temperature "
    "scaling fitted on validation data.",
    not_retested=("trainer.max_epochs=40",),
)

SMOOTHING = Lesson(
    name="label_smoothing_and_calibration",
    title="Label smoothing improves the calibration of overconfident networks only",
    finding="Label smoothing improves the calibration of an overconfident network",
    panels=(
        Panel(
            _BLURRED,
            "loss.label_smoothing=0.0",
            _METRICS,
            (
                Claim("loss.label_smoothing=0.05", "test/ece", "better"),
                Claim("loss.label_smoothing=0.2", "test/ece", "better"),
            ),
            within="data.size=2",
        ),
        Panel(
            _SHARP,
            "loss.label_smoothing=0.0",
            (*_METRICS, "test/accuracy"),
            (
                Claim("loss.label_smoothing=0.05", "test/ece", "worse"),
                Claim("loss.label_smoothing=0.2", "test/ece", "worse", low=0.15),
            ),
            within="data.size=8",
        ),
    ),
    curves=_reliability("data.size=2"),
    observation="On digits of 2×2 pixels, label smoothing lowers the calibration error by a third or more. On digits "
    "of 8×8 pixels, it raises the calibration error to 4 times (smoothing 0.05) and 12 times (0.2), although the "
    "accuracy is no lower. Do not use label smoothing on such data if you need calibrated probabilities.",
    explanation="The gradient with respect to the logit of the label is p - t, where t = 1 - ε + ε/C. For ε = 0.2 and "
    "ten classes it is 0 at p = 0.82, and it is positive above. A network that is correct in 98 % of all cases "
    "therefore predicts about 0.8. The difference is most of the calibration error in the table for 8×8 pixels.",
    suggestions="`loss.label_smoothing=0.02`; `loss=smoothed loss@loss.loss=focal`; its effect under label noise: "
    "`noise=symmetric noise.rate=0.2`.",
    quick_overrides=("trainer.max_epochs=15",),
    not_retested=("data.size=2",),
)
