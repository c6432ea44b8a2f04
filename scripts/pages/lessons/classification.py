"""Lessons on classification: underfitting, label noise, squared error, class imbalance, vanishing gradients."""

from pages.lessons import curves
from pages.lessons.lesson import Claim, Lesson, Panel

_BAND = "band: minimum to maximum over the seeds"


def _mae(rate: str, *claims: Claim) -> Panel:
    title = f"SGD with a learning rate of {rate}"
    return Panel(title, "loss=cross_entropy", ("train/accuracy", "test/accuracy"), claims, f"optimizer.lr={rate}")


MAE = Lesson(
    name="mae_underfits",
    title="Absolute error on probabilities underfits",
    finding="At the same learning rate, absolute error fits only half of the training examples",
    panels=(
        _mae("0.1", Claim("loss=mae", "train/accuracy", "worse", high=0.7)),
        _mae("0.5", Claim("loss=mae", "train/accuracy", "worse", high=0.97)),
    ),
    curves=curves.CurvesSpec(
        "epochs", "train/accuracy", curves.history_curve("train/accuracy"), _BAND, within="optimizer.lr=0.1"
    ),
    observation="At the same learning rate and after the same number of epochs, a network trained with absolute error "
    "classifies about half of its training examples correctly, and a network trained with cross-entropy nearly all of "
    "them. This is underfitting, not overfitting. A higher learning rate removes a part of the difference.",
    explanation="With respect to the logit of the correct class, the gradient of cross-entropy is -(1 - p). The "
    "gradient of the absolute error 1 - p is -p (1 - p), which is smaller by the factor p. With ten classes p is about "
    "0.1 at the start, so training starts ten times slower. A class whose p decreases while other classes are learned "
    "is learned even more slowly. The factor differs between examples, so no learning rate compensates for it.",
    suggestions="`optimizer=adam`, which compensates for the norm of the gradient but not for the relative weights of "
    "the examples; `loss=gce loss.q=0.7`, which is between the two losses; `loss=nce_mae`, which adds nce, a loss "
    "whose gradient does not have the factor p.",
    quick_overrides=("trainer.max_epochs=15",),
    not_retested=("optimizer.lr=0.5",),
)


def _noise(rate: str, title: str, *claims: Claim) -> Panel:
    return Panel(title, "loss=cross_entropy", ("test/accuracy",), claims, f"noise.rate={rate}")


NOISE = Lesson(
    name="robust_losses_under_label_noise",
    title="Cross-entropy memorises wrong labels, robust losses do not",
    finding="With 40 % wrong labels, cross-entropy learns the digits, then memorises the wrong labels",
    panels=(
        _noise(
            "0.4",
            "40 % of the training labels are wrong",
            Claim("loss=cross_entropy", "test/accuracy", "baseline", high=0.75),
            Claim("loss=gce", "test/accuracy", "better", low=0.85),
            Claim("loss=nce_rce", "test/accuracy", "better", low=0.9),
        ),
        _noise(
            "0.0",
            "All labels are correct",
            Claim("loss=gce", "test/accuracy", "not distinguishable"),
            Claim("loss=nce_rce", "test/accuracy", "not distinguishable"),
        ),
    ),
    curves=curves.CurvesSpec(
        "epochs", "val/accuracy (true labels)", curves.history_curve("val/accuracy"), _BAND, within="noise.rate=0.4"
    ),
    observation="In the first epochs cross-entropy is as accurate as the other losses. Then its accuracy decreases "
    "from epoch to epoch, while its accuracy on the given labels increases (`train/accuracy_given` in history.csv): it "
    "memorises the wrong labels. The robust losses do not memorise them.",
    explanation="The gradient of cross-entropy with respect to the logit of the label is -(1 - p). It is largest for "
    "labels to which the network assigns a low probability, and these are mostly the wrong labels. nce_rce is "
    "symmetric: for each example, the losses of all labels add up to a constant. Labels that are wrong at random "
    "therefore scale the expected loss and add a constant, which does not move its minimum (if fewer than 90 % of the "
    "labels of ten classes are wrong). gce multiplies the gradient of cross-entropy by p^q, so labels with a low "
    "probability have hardly any effect.",
    suggestions="`noise=pair_flip`, whose wrong labels are not spread over all classes; `noise.rate=0.8`; "
    "`callbacks=early_stopping`, which stops cross-entropy at its highest validation accuracy, but needs examples with "
    "correct labels.",
    quick_overrides=("trainer.max_epochs=30",),
)

SQUARED = Lesson(
    name="mse_as_a_classifier",
    title="Squared error classifies accurately but predicts poor probabilities",
    finding="Squared error is as accurate as cross-entropy, but its probabilities are underconfident",
    panels=(
        Panel(
            "mse: squared error of the outputs and the targets 0 and 1; brier: squared error of the softmax",
            "loss=cross_entropy",
            ("test/accuracy", "test/nll"),
            (
                Claim("loss=mse", "test/accuracy", "better", retested=False),
                Claim("loss=mse", "test/nll", "worse", low=0.2),
                Claim("loss=brier", "test/nll", "not distinguishable"),
            ),
        ),
    ),
    curves=curves.CurvesSpec("epochs", "val/nll", curves.history_curve("val/nll"), _BAND, log=True),
    observation="Tutorials warn against squared error for classification. These runs do not confirm the warning: the "
    "accuracy of squared error is no lower than that of cross-entropy, and even slightly higher here. Its "
    "probabilities are worse (test/nll).",
    explanation="Least squares estimates the mean of a target that is 0 or 1. This mean is the probability of the "
    "class, so the class with the largest output is the right prediction. The gradient with respect to the outputs, 2 "
    "(z - t)/C, does not vanish for wrong predictions. But the outputs are not restricted to the range from 0 to 1. To "
    "use them as probabilities, they are clamped and divided by their sum, and an error of 0.05 in each of the nine "
    "outputs for the wrong classes lowers the probability of the correct class by a third. The warning applies to the "
    "squared error of a softmax that starts from confident wrong predictions: see the lesson "
    "[vanishing_gradients](#vanishing_gradients).",
    suggestions="`loss=rescaled_mse loss.k=5 loss.m=5`, which gives the correct class more weight (Hui & Belkin 2021); "
    "`optimizer=sgd`; `data.size=3`, where the digits are harder to distinguish.",
)

_TAIL = ("test/recall", "test/accuracy")

TAIL = Lesson(
    name="long_tail",
    title="Logit adjustment improves the recall of rare classes",
    finding="With a long-tailed training set, rare digits have a low recall; logit adjustment raises it",
    panels=(
        Panel(
            "Class 0 has 50 times as many training examples as class 9; the test set is about balanced",
            "loss=cross_entropy",
            _TAIL,
            (
                Claim("loss=logit_adjusted", "test/recall", "better"),
                Claim("loss=logit_adjusted", "test/accuracy", "better"),
            ),
        ),
    ),
    curves=curves.CurvesSpec(
        "digit (0 is the most frequent in training, 9 the rarest)",
        "recall on the test set",
        curves.recall_by_class,
        _BAND,
        markers=True,
    ),
    observation="Cross-entropy recognises nearly all of the frequent digits and misses many of the rare ones. Logit "
    "adjustment recognises more of the rare digits and loses little on the frequent ones. Class weights "
    "(class_balanced) and ldam are not distinguishable from cross-entropy here.",
    explanation="Cross-entropy estimates p(y|x), which depends on the class prior p(y): if x is ambiguous, the "
    "frequent class is predicted. Logit adjustment adds log p(y) to the logits in training only, so the network's own "
    "logits do not have to represent the prior. Class weights multiply gradients, and once a network fits all training "
    "examples, their gradients are near zero. Class weights therefore change the course of training, but hardly its "
    "result.",
    suggestions="`imbalance.ratio=10`; `loss=logit_adjusted loss.tau=2`; `loss=ldam callbacks=deferred_reweighting`; "
    "`losslab evaluate RUN_FOLDER` for the recall of each class.",
    quick_seeds=5,
)

_START = ("train/accuracy", "test/accuracy")

VANISHING = Lesson(
    name="vanishing_gradients",
    title="Squared error on the softmax does not recover from confident mistakes",
    finding="After a start with confident mistakes, squared error on the softmax never learns some classes",
    panels=(
        Panel(
            "The initial weights of the last layer are 100 times the usual ones: confident, mostly wrong predictions",
            "loss=cross_entropy",
            _START,
            (
                Claim("loss=brier", "train/accuracy", "worse", high=0.9),
                Claim("loss=cross_entropy", "train/accuracy", "baseline", low=0.99),
            ),
            within="model.gain=100.0",
        ),
        Panel(
            "The usual initial weights: uncertain predictions",
            "loss=cross_entropy",
            _START,
            (Claim("loss=brier", "test/accuracy", "not distinguishable"),),
            within="model.gain=1.0",
        ),
    ),
    curves=curves.CurvesSpec(
        "epochs",
        "|∂ℓ/∂z_y| for the logit of the correct class,\nmedian over misclassified training examples",
        curves.gradient_on_wrong,
        _BAND,
        within="model.gain=100.0",
        log=True,
    ),
    observation="With the usual initial weights, the two losses learn equally well. After a start with confident "
    "mistakes, cross-entropy still learns every training example (its curve, a median over the misclassified examples, "
    "ends when a seed has none left). With squared error on the softmax, some digits are never predicted. At the end "
    "the gradient with respect to their logits is about 1e-6: it is almost zero, far from any minimum.",
    explanation="With respect to the logit of the correct class, the gradient of cross-entropy is p_y - 1, which is "
    "largest where p_y is 0. The gradient of the squared error Σ (p - t)² is 2 p_y ((p_y - 1) - Σ_j p_j (p_j - t_j)). "
    "It has the factor p_y, so a class with a probability near 0 has almost no gradient. Adam rescales gradients, but "
    "the scale is determined by the examples of the other classes.",
    suggestions="`model.gain=10`; `loss=mae`, which has the same factor; `loss=mse`, the squared error of the outputs "
    "themselves, which does not have it; `losslab explain RUN_FOLDER` for the gradients of each layer.",
    quick_overrides=("trainer.max_epochs=15",),
)
