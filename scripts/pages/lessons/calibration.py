"""Lessons on calibration: whether predicted probabilities equal observed frequencies."""

from pages.lessons import curves
from pages.lessons.lesson import Claim, Lesson, Panel

_METRICS = ("test/ece", "test/nll")
_BAND = "the bars are 95 % intervals of the share"
_BLURRED = "Digits of 2×2 pixels, 60 % of which are right: cross-entropy is too sure"
_SHARP = "Digits of 8×8 pixels, 98 % of which are right: cross-entropy is as sure as it may be"


def _reliability(within: str) -> curves.CurvesSpec:
    return curves.CurvesSpec(
        "confidence: probability of the answer",
        "share of right answers",
        curves.reliability_curve,
        _BAND,
        within=within,
        diagonal=True,
        markers=True,
    )


FOCAL = Lesson(
    name="focal_and_calibration",
    title="The focal loss makes a network less sure, for better and for worse",
    finding="Trained for long, a network is too sure; the focal loss brings it nearer to honesty",
    panels=(
        Panel(
            "After 40 epochs, when cross-entropy is too sure",
            "loss.gamma=0.0",
            _METRICS,
            (Claim("loss.gamma=2.0", "test/ece", "better"), Claim("loss.gamma=5.0", "test/ece", "better")),
            within="trainer.max_epochs=40",
        ),
        Panel(
            "After 8 epochs, when it is not",
            "loss.gamma=0.0",
            _METRICS,
            (Claim("loss.gamma=2.0", "test/ece", "worse"), Claim("loss.gamma=5.0", "test/ece", "worse")),
            within="trainer.max_epochs=8",
        ),
    ),
    curves=_reliability("trainer.max_epochs=40"),
    observation="Below the diagonal a network is surer than it is right. γ = 0 is cross-entropy, which lies below it "
    "after long training; γ = 2 comes near. With a fifth of the training it is not too sure, and the same γ makes the "
    "calibration error larger: the focal loss is no cure for it, but a push in one direction.",
    explanation="(1 - p)^γ turns examples down that are already sure, so the last steps towards p = 1 are not taken. "
    "It is not proper: if the truth is q, the expected loss is least at a p that lies nearer to even odds than q. The "
    "push goes one way, whichever way would have been right.",
    suggestions="`callbacks=anneal callbacks.anneal.parameter=gamma callbacks.anneal.end=0`, which ends with a proper "
    "loss; `data.size=8`, where 98 % of the answers are right; a temperature fitted on validation data.",
    not_retested=("trainer.max_epochs=40",),
)

SMOOTHING = Lesson(
    name="label_smoothing_and_calibration",
    title="Label smoothing helps who is too sure, and harms who is not",
    finding="A network that is too sure comes nearer to honesty with smoothed labels",
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
    observation="On blurred digits the calibration error falls by a third or more. On sharp ones it grows tenfold, in "
    "proportion to the smoothing, although decisions are no worse: ask what the probabilities are for.",
    explanation="The gradient by the logits is p - t with t = 1 - ε + ε/C for the label: at ε = 0.2 and ten classes "
    "it is 0 at p = 0.82 and turns round above. A network that is right in 98 % of all cases says 0.8, and the "
    "difference is the calibration error of the second table.",
    suggestions="`loss.label_smoothing=0.02`; `loss=smoothed loss@loss.loss=focal`; how it works against label noise: "
    "`noise=symmetric noise.rate=0.2`.",
    quick_overrides=("trainer.max_epochs=15",),
    not_retested=("data.size=2",),
)
