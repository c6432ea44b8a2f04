"""The situations of the atlas, each of which is a study, and the losses that they compare."""

from dataclasses import dataclass

from losslab.losses import catalog
from pages.study import Study

_LEFT_OUT_CLASSES = {
    "distillation": "needs a teacher",
    "gjs": "trains on random views of each image, which the other losses do not get",
    "kl_div": "has the gradient of cross_entropy if the target is a label",
    "balanced_softmax": "is logit_adjusted",
    "smoothed": "is label_smoothing, as configured",
    "rce": "is a multiple of mae, and Adam's steps do not depend on such a factor",
    "weighted_sum": "is an example of a sum of other losses",
    "custom": "stands for a loss of your own",
}
_LEFT_OUT_VALUES = {
    "smooth_l1": "is huber, as configured",
    "barron": "is charbonnier, as configured",
    "quantile": "estimates a quantile, here the 90 % quantile; at 50 % it is half of l1",
    "expectile": "estimates an expectile, here the 90 % expectile; at 50 % it is half of mse",
    "poisson_nll": "is for counts",
    "tweedie": "is for amounts that are not negative",
}
_VALUES = (
    "mse", "l1", "huber", "log_cosh", "charbonnier", "cauchy", "geman_mcclure", "welsch", "tukey", "gaussian_nll",
)  # fmt: skip

Columns = tuple["Situation", ...]


@dataclass(frozen=True)
class Situation:
    """A column of the atlas."""

    study: Study
    title: str
    description: str
    """What the training data are like."""

    @property
    def name(self) -> str:
        """The name of the study, and the anchor of its section."""
        return self.study.name


@dataclass(frozen=True)
class Task:
    """The situations of one task, in which the same losses are compared with the same reference."""

    name: str
    """"classification" or "regression"."""
    situations: Columns
    losses: tuple[str, ...]
    reference: str
    left_out: dict[str, str]
    """Losses of this task that are not compared, and why."""
    common: tuple[str, ...]
    """The overrides of all situations."""


_CLASSES = tuple(name for name in catalog.names() if name not in {*_LEFT_OUT_CLASSES, *_LEFT_OUT_VALUES, *_VALUES})
_DIGITS = (
    "model=mlp", "data=digits", "data.size=8", "data.batch_size=128", "data.split_seed=${seed}",
    "trainer.max_epochs=40", "logger=none",
)  # fmt: skip
_LINEAR = ("model=linear", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=60", "logger=none")
_SYNTHETIC = ("data=linear_synthetic", "data.data_seed=${seed}")


def _classification(name: str, title: str, description: str, *own: str) -> Situation:
    losses = f"loss={','.join(_CLASSES)}"
    race = ("study.margin=0.01", "study.tune_seeds=3", "study.first_seeds=20", "study.max_seeds=20")
    study = Study(name, (*_DIGITS, *own, losses, "study.reference=loss=cross_entropy", *race))
    return Situation(study, title, description)


def _regression(name: str, title: str, description: str, *own: str) -> Situation:
    race = ("study.tune_seeds=3", "study.first_seeds=10", "study.max_seeds=30")
    study = Study(name, (*_LINEAR, *own, f"loss={','.join(_VALUES)}", "study.reference=loss=mse", *race))
    return Situation(study, title, description)


CLASSIFICATION = Task(
    "classification",
    (
        _classification("clean", "clean labels", "the digits as they are, about 1,258 for training"),
        _classification(
            "wrong_20", "20 % wrong labels", "a fifth of the training labels of each class are wrong",
            "noise=symmetric", "noise.rate=0.2",
        ),
        _classification(
            "wrong_40", "40 % wrong labels", "two fifths of the training labels of each class are wrong",
            "noise=symmetric", "noise.rate=0.4",
        ),
        _classification(
            "long_tail", "long tail", "the digit 0 is twenty times as frequent in training as the digit 9",
            "imbalance=long_tail", "imbalance.ratio=20", "study.metric=recall",
        ),
    ),
    _CLASSES,
    "cross_entropy",
    _LEFT_OUT_CLASSES,
    _DIGITS,
)  # fmt: skip
REGRESSION = Task(
    "regression",
    (
        _regression(
            "gaussian", "Gaussian noise", "a linear function with Gaussian noise of standard deviation 1",
            *_SYNTHETIC, "data.noise=1",
        ),
        _regression(
            "outliers", "outliers", "the same, and a tenth of the training targets are moved up, by 20 on average",
            *_SYNTHETIC, "data.noise=1", "noise=outliers",
        ),
        _regression(
            "heavy_tails", "heavy tails", "three tenths of the training targets are moved up or down, by 20 on average",
            *_SYNTHETIC, "data.noise=1", "noise=outliers", "noise.rate=0.3", "noise.sides=two",
        ),
        _regression(
            "heteroscedastic", "unequal noise",
            "noise of standard deviation 0.1, and in training more of 0.5 · exp(z), where z is a feature",
            *_SYNTHETIC, "noise=heteroscedastic",
        ),
        _regression(
            "diabetes", "diabetes", "real data: 442 patients, targets with standard deviation 1",
            "data=diabetes", "data.split_seed=${seed}",
        ),
    ),
    _VALUES,
    "mse",
    _LEFT_OUT_VALUES,
    _LINEAR,
)  # fmt: skip
TASKS = (CLASSIFICATION, REGRESSION)
