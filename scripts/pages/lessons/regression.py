"""Lessons of regression."""

from pages.lessons import curves
from pages.lessons.lesson import Claim, Lesson, Panel

HUBER = Lesson(
    name="huber_beats_mse",
    title="Huber's loss beats the squared error, where there are outliers",
    finding="With a tenth of outliers the squared error settles far from the law; huber and l1 do not",
    panels=(
        Panel(
            "A tenth of the training targets is thrown upwards, by 20 on average",
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
            "No outliers: Gaussian noise of deviation 0.1, and so a test MSE of 0.01 at best",
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
        "val/mse, of clean targets",
        curves.history_curve("val/mse"),
        "the band is from the lowest to the highest seed",
        within="noise.rate=0.1",
        log=True,
    ),
    observation="With outliers the squared error has hundreds of times the test MSE of the two robust losses. "
    "Without them the three come within a few per cent of each other: robustness is nearly free here.",
    explanation="The squared error's gradient is 2r: a target that lies 20 off pulls as hard as two hundred that lie "
    "0.1 off. Its minimum is the mean, which a tenth of outliers at +20 moves by 2, and 2² is about what is measured. "
    "Huber's gradient is r up to δ = 1 and ±1 from there on, so an outlier pulls as hard as one that lies 1 off: that "
    "leaves a shift of about 0.1·1/0.9 = 0.11, whose square and the noise's 0.01 make the 0.02 of the table. The "
    "absolute error's minimum is the median, which moves by 0.01.",
    suggestions="`loss=huber loss.delta=0.135` (1.345 deviations of the noise); `loss=tukey`, which lets go of "
    "outliers; `noise.sides=two`, where the mean stays in place and the squared error is merely less exact.",
    quick_overrides=("trainer.max_epochs=30",),
    quick_seeds=5,
)

CLIPPING = Lesson(
    name="clipping",
    title="Clipping steadies the training, and does not mend the loss",
    finding="Clipping takes the leaps out of the training; what the outliers teach stays",
    panels=(
        Panel(
            "All four, beside the squared error without clipping",
            "loss=mse trainer.gradient_clip_val=null",
            ("test/mae",),
            (
                Claim("loss=mse trainer.gradient_clip_val=1.0", "test/mae", "better"),
                Claim("loss=huber trainer.gradient_clip_val=null", "test/mae", "better"),
            ),
        ),
        Panel(
            "All four, beside huber without clipping",
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
        "val/mse, of clean targets",
        curves.history_curve("val/mse"),
        "the band is from the lowest to the highest seed",
        log=True,
    ),
    observation="Without clipping the squared error leaps from epoch to epoch: a batch with large outliers throws the "
    "weights off. With gradients of length 1 at most it goes down, and ends with less than half of the error. Huber "
    "ends lower still, with clipping and without.",
    explanation="A clipped gradient is shorter and points where it pointed before: to the outliers, whose share in "
    "the batch's sum of 2r is as large as ever. Clipping bounds what a batch does to the weights. Huber bounds what "
    "each example does to the batch: the direction is another one. Where all examples are one batch, clipping does "
    "not even move the place where the gradient is zero.",
    suggestions="`trainer.gradient_clip_val=0.1`; `optimizer.lr=0.1`, at which the squared error without clipping "
    "ends in NaN and the run says in which layer; `optimizer=adam`, whose steps are bounded anyway.",
    quick_seeds=5,
)
