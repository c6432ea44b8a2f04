"""Lessons on regression: outliers and gradient clipping."""

from pages.lessons import curves
from pages.lessons.lesson import Claim, Lesson, Panel

HUBER = Lesson(
    name="huber_beats_mse",
    title="Huber loss beats squared error if there are outliers",
    finding="With 10 % outliers, squared error converges far from the true function; huber and l1 do not",
    panels=(
        Panel(
            "One tenth of the training targets is shifted upwards, by 20 on average",
            "loss=mse",
            ("test/mse",),
            (
                Claim("loss=mse", "test/mse", "baseline", low=2.5),
                Claim("loss=huber", "test/mse", "better", high=0.03),
                Claim("loss=l1", "test/mse", "better", high=0.015),
            ),
            within="noise.rate=0.1",
        ),
        Panel(
            "No outliers: Gaussian noise with standard deviation 0.1, so the best possible test MSE is 0.01",
            "loss=mse",
            ("test/mse",),
            (
                Claim("loss=mse", "test/mse", "baseline", high=0.011),
                Claim("loss=huber", "test/mse", "not distinguishable"),
            ),
            within="noise.rate=0.0",
        ),
    ),
    curves=curves.CurvesSpec(
        "epochs",
        "val/mse (clean targets)",
        curves.history_curve("val/mse"),
        "band: minimum to maximum over the seeds",
        within="noise.rate=0.1",
        log=True,
    ),
    observation="With outliers, the test MSE of squared error is hundreds of times that of the two robust losses. "
    "Without outliers, the three losses differ by at most a few per cent: here robustness costs almost nothing.",
    explanation="The gradient of the squared error is 2r for a residual r: a target that is off by 20 has as much "
    "influence as two hundred targets that are off by 0.1. The squared error is minimal at the mean. Outliers of +20 "
    "in one tenth of the targets shift the mean by 2, and the measured test MSE is about 2². The gradient of huber is "
    "r up to δ = 1 and ±1 beyond, so an outlier has the same influence as a target that is off by 1. At the minimum, "
    "the gradients ±1 of one tenth balance the shift of nine tenths: 0.1 · 1 = 0.9 · shift, so the shift is 0.11. Its "
    "square plus the noise variance 0.01 is the 0.02 in the table. The absolute error is minimal at the median, which "
    "shifts by 0.01.",
    suggestions="`loss=huber loss.delta=0.135` (1.345 standard deviations of the noise); `loss=tukey`, whose gradient "
    "is 0 for large residuals; `noise.sides=two`, where the mean does not shift and squared error is only less "
    "precise.",
    quick_overrides=("trainer.max_epochs=30",),
    quick_seeds=5,
)

CLIPPING = Lesson(
    name="clipping",
    title="Gradient clipping stabilises training but does not make the loss robust",
    finding="Clipping removes the jumps in training; the effect of the outliers on the result remains",
    panels=(
        Panel(
            "All four, compared with squared error without clipping",
            "loss=mse trainer.gradient_clip_val=null",
            ("test/mae",),
            (
                Claim("loss=mse trainer.gradient_clip_val=1.0", "test/mae", "better"),
                Claim("loss=huber trainer.gradient_clip_val=null", "test/mae", "better"),
            ),
        ),
        Panel(
            "All four, compared with huber without clipping",
            "loss=huber trainer.gradient_clip_val=null",
            ("test/mae",),
            (
                Claim("loss=huber trainer.gradient_clip_val=1.0", "test/mae", "not distinguishable"),
                Claim("loss=mse trainer.gradient_clip_val=1.0", "test/mae", "worse"),
            ),
        ),
    ),
    curves=curves.CurvesSpec(
        "epochs",
        "val/mse (clean targets)",
        curves.history_curve("val/mse"),
        "band: minimum to maximum over the seeds",
        log=True,
    ),
    observation="Without clipping, the validation error of squared error jumps from epoch to epoch: a batch with large "
    "outliers moves the weights far away. With a gradient norm of at most 1, the validation error decreases, and the "
    "final test MAE is less than half. Huber ends lower still, with and without clipping.",
    explanation="A clipped gradient is shorter but has the same direction: it is still proportional to the sum of the "
    "gradients of the examples, in which outliers have the same share as before. Clipping bounds the effect of each "
    "batch on the weights. Huber bounds the effect of each example on the gradient of the batch, which changes the "
    "direction of the gradient. If all examples are in one batch, clipping does not even move the point at which the "
    "gradient is zero.",
    suggestions="`trainer.gradient_clip_val=0.1`; `optimizer.lr=0.1`, at which squared error without clipping ends in "
    "NaN and the run names the layer; `optimizer=adam`, whose steps are bounded anyway.",
    quick_seeds=5,
)
