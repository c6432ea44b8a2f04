"""Lessons of classification: underfitting, label noise, squared errors, rare classes."""

from pages.lessons import curves
from pages.lessons.lesson import Claim, Lesson, Panel

_BAND = "the band is from the lowest to the highest seed"


def _mae(rate: str, *claims: Claim) -> Panel:
    title = f"SGD at a rate of {rate}"
    return Panel(title, "loss=cross_entropy", ("train/accuracy", "test/accuracy"), claims, f"optimizer.lr={rate}")


MAE = Lesson(
    name="mae_underfits",
    title="The absolute error underfits",
    finding="At the same rate the absolute error learns half of what it is trained on",
    panels=(
        _mae("0.1", Claim("loss=mae", "train/accuracy", "worse", high=0.7)),
        _mae("0.5", Claim("loss=mae", "train/accuracy", "worse", high=0.97)),
    ),
    curves=curves.CurvesSpec(
        "epochs", "train/accuracy", curves.history_curve("train/accuracy"), _BAND, within="optimizer.lr=0.1"
    ),
    observation="At the same rate and after as many epochs the absolute error knows about half of the examples it was "
    "trained on, and cross-entropy nearly all. It does not overfit: it does not fit. A higher rate makes up for a "
    "part of it.",
    explanation="By the logit of the right class cross-entropy has the gradient -(1 - p), the absolute error 1 - p has "
    "-p (1 - p): the same, times p. With ten classes p begins near 0.1, so training begins ten times slower, and a "
    "class whose p falls while others are learnt is learnt slower still. The factor is not the same for all examples, "
    "so no learning rate makes up for it.",
    suggestions="`optimizer=adam`, which makes up for the length of the gradient and not for its shares; `loss=gce "
    "loss.q=0.7`, in between; `loss=nce_mae`, which adds a loss that starts.",
    quick_overrides=("trainer.max_epochs=15",),
    not_retested=("optimizer.lr=0.5",),
)


def _noise(rate: str, title: str, *claims: Claim) -> Panel:
    return Panel(title, "loss=cross_entropy", ("test/accuracy",), claims, f"noise.rate={rate}")


NOISE = Lesson(
    name="robust_losses_under_label_noise",
    title="Robust losses learn the digits, cross-entropy learns the labels",
    finding="Four labels in ten are wrong: cross-entropy learns the digits, and then the errors by heart",
    panels=(
        _noise(
            "0.4",
            "Four training labels in ten are wrong",
            Claim("loss=cross_entropy", "test/accuracy", "baseline", high=0.75),
            Claim("loss=gce", "test/accuracy", "better", low=0.85),
            Claim("loss=nce_rce", "test/accuracy", "better", low=0.9),
        ),
        _noise(
            "0.0",
            "All labels are right",
            Claim("loss=gce", "test/accuracy", "not distinguishable"),
            Claim("loss=nce_rce", "test/accuracy", "not distinguishable"),
        ),
    ),
    curves=curves.CurvesSpec(
        "epochs", "val/accuracy, by true labels", curves.history_curve("val/accuracy"), _BAND, within="noise.rate=0.4"
    ),
    observation="In its first epochs cross-entropy is as good as the others. Then its accuracy falls, epoch by epoch, "
    "while it gets more of the labels it is given right (`train/accuracy_given` in history.csv): it learns the wrong "
    "ones by heart. The robust losses leave them alone.",
    explanation="Cross-entropy's gradient by the logit of the label is -(1 - p): longest for the labels that the "
    "network does not believe, which are the wrong ones. Under nce_rce the losses of all labels of an example add up "
    "to a constant, so labels that are wrong at random add a constant to the expected loss and leave its minimum "
    "where it was. gce multiplies cross-entropy's gradient by p^q, so that what is not believed hardly counts.",
    suggestions="`noise=pair_flip`, whose errors are not spread over all classes; `noise.rate=0.8`; "
    "`callbacks=early_stopping`, which stops cross-entropy where its accuracy was highest, if there are clean examples "
    "to tell.",
    quick_overrides=("trainer.max_epochs=30",),
)

SQUARED = Lesson(
    name="mse_as_a_classifier",
    title="The squared error classifies well, and its probabilities are poor",
    finding="The squared error decides as well as cross-entropy; as probabilities its outputs are too unsure",
    panels=(
        Panel(
            "The network's outputs against 0 and 1 (mse), its softmax against 0 and 1 (brier)",
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
    observation="The tutorials' warning, that the squared error must not be used for classes, is not what comes out: "
    "its accuracy is no lower, here even a little higher. What is worse is what it says of its own certainty.",
    explanation="Least squares estimates the mean of a target of 0 and 1, which is the probability, so its largest "
    "output is the right decision. Its gradient on the outputs, 2 (z - t)/C, never fades for what is wrong. But "
    "nothing keeps the outputs between 0 and 1: they are cut off and divided by their sum to be read as "
    "probabilities, and an error of 0.05 in each of nine zeros takes a third off the rest. What the warning is about "
    "is the squared error of a softmax from a bad start: the lesson [vanishing_gradients](#vanishing_gradients).",
    suggestions="`loss=rescaled_mse loss.k=5 loss.m=5`, which weighs the right class (Hui & Belkin 2021); "
    "`optimizer=sgd`; `data.size=3`, where fewer digits can be told.",
)

_TAIL = ("test/recall", "test/accuracy")

TAIL = Lesson(
    name="long_tail",
    title="A long tail wants its logits adjusted",
    finding="Under a long tail the rare digits are not found; adjusted logits find more of them",
    panels=(
        Panel(
            "Class 0 has 50 times as many training examples as class 9; the test set has about as many of each",
            "loss=cross_entropy",
            _TAIL,
            (
                Claim("loss=logit_adjusted", "test/recall", "better"),
                Claim("loss=logit_adjusted", "test/accuracy", "better"),
            ),
        ),
    ),
    curves=curves.CurvesSpec(
        "digit: 0 is the most frequent in training, 9 the rarest",
        "recall: share of its test images found",
        curves.recall_by_class,
        _BAND,
        markers=True,
    ),
    observation="Cross-entropy finds nearly all of the frequent digits and loses many of the rare ones. Adjusted "
    "logits find more of the rare ones and give up little among the frequent. Class weights and ldam could not be "
    "told from cross-entropy here.",
    explanation="Cross-entropy estimates p(y|x), which holds how frequent y is: where x is in doubt the frequent "
    "class wins. With log p(y) added to the logits in training alone, the network's own logits need not hold it. "
    "Class weights multiply gradients, and these are near zero for every training example once a network fits them "
    "all: they change the way, and hardly the end.",
    suggestions="`imbalance.ratio=10`; `loss=logit_adjusted loss.tau=2`; `loss=ldam callbacks=deferred_reweighting`; "
    "the classes one by one: `losslab evaluate RUN_FOLDER`.",
    quick_seeds=5,
)

_START = ("train/accuracy", "test/accuracy")

VANISHING = Lesson(
    name="vanishing_gradients",
    title="The squared error of a softmax does not leave a bad start",
    finding="From a start that is sure and wrong, the squared error of a softmax gives whole classes up",
    panels=(
        Panel(
            "The last layer begins a hundred times too large: sure, and mostly wrong",
            "loss=cross_entropy",
            _START,
            (
                Claim("loss=brier", "train/accuracy", "worse", high=0.9),
                Claim("loss=cross_entropy", "train/accuracy", "baseline", low=0.99),
            ),
            within="model.gain=100.0",
        ),
        Panel(
            "The usual start: undecided",
            "loss=cross_entropy",
            _START,
            (Claim("loss=brier", "test/accuracy", "not distinguishable"),),
            within="model.gain=1.0",
        ),
    ),
    curves=curves.CurvesSpec(
        "epochs",
        "pull on the logit of the right class, |∂ℓ/∂z_y|:\nmedian of the training examples that are wrong",
        curves.gradient_on_wrong,
        _BAND,
        within="model.gain=100.0",
        log=True,
    ),
    observation="From an undecided start the two learn alike. From a start that is sure and wrong cross-entropy still "
    "learns every training example (its curve ends where a seed has none left that is wrong). Under the squared error "
    "whole digits are never said, and what pulls at their logits at the end is a millionth: a gradient of zero, far "
    "from any minimum.",
    explanation="By the logit of the right class cross-entropy has the gradient p_y - 1: where p_y is 0 it pulls "
    "hardest. The squared error Σ (p - t)² has 2 p_y ((p_y - 1) - Σ_j p_j (p_j - t_j)), the same shape times p_y: a "
    "class that is held for impossible is not pulled at. What Adam makes of such a gradient is set by the other "
    "classes' examples.",
    suggestions="`model.gain=10`; `loss=mae`, which has the same factor; `loss=mse`, the squared error of the outputs "
    "themselves, which has none; `losslab explain RUN_FOLDER` for the gradients of each layer.",
    quick_overrides=("trainer.max_epochs=15",),
)
