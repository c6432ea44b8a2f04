"""The rows of classification."""

from choosings.row import Row, Trial

_SPLIT = ("data.split_seed=${seed}", "trainer.max_epochs=20")
_SMALL = ("model=mlp", "data=digits", "data.size=8", "data.batch_size=128")
_DIGITS = (*_SMALL, *_SPLIT)
_LONG = (*_SMALL, "data.split_seed=${seed}", "trainer.max_epochs=100")
_WRONG = (
    "Of each class {share} of the training labels are any other class alike. After 100 epochs cross_entropy has learnt "
    "many of them by heart (`train/accuracy_given`); after 20 it has not: stopping early is the cheapest tolerance, if "
    "one knows when. Validation and test labels are right."
)


def _noisy(rate: float, losses: str) -> tuple[Trial, ...]:
    noise = ("noise=symmetric", f"noise.rate={rate}")
    early = Trial((*_DIGITS, *noise, "loss=cross_entropy"), label="loss=cross_entropy, 20 epochs")
    return Trial((*_LONG, *noise, f"loss={losses}")), early


ROWS = (
    Row(
        name="binary",
        situation="binary classification",
        first="bce",
        compare="squared_hinge, mse",
        reason="It is the likelihood of a yes or no, proper, and its gradient p − y does not vanish on what is "
        "confidently wrong.",
        source="Cox 1958, *The regression analysis of binary sequences*",
        trials=(Trial(("model=mlp", "data=breast_cancer", *_SPLIT, "loss=bce,squared_hinge,mse")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=bce",
        tested=85,
    ),
    Row(
        name="multiclass",
        situation="multi-class classification",
        first="cross_entropy",
        compare="rescaled_mse, bce (one-vs-all)",
        reason="It is the likelihood of the class, proper, and what everyone's settings were tuned for; squared error "
        "on the logits does about as well in large comparisons.",
        source="Good 1952, *Rational decisions*; Hui & Belkin 2021, *Evaluation of neural architectures trained with "
        "square loss vs cross-entropy in classification tasks*",
        trials=(Trial((*_DIGITS, "loss=cross_entropy,rescaled_mse,bce")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
    ),
    Row(
        name="multilabel",
        situation="several labels at once",
        first="bce",
        compare="sigmoid_focal, where few of many labels are yes",
        reason="Labels that do not exclude each other are so many yes-or-no questions; where nearly all answers are "
        "no, the easy ones drown the others and want turning down.",
        source="Ridnik et al. 2021, *Asymmetric loss for multi-label classification*; Lin et al. 2017, *Focal loss for "
        "dense object detection*",
        trials=(Trial((*_DIGITS, "loss=bce,sigmoid_focal")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=bce",
        gap="There is no multi-label data set yet: the ten digits, one-vs-all, stand in, where exactly one label of "
        "ten is yes.",
    ),
    Row(
        name="soft",
        situation="soft labels: mixed images, or annotators who disagree",
        first="cross_entropy, which takes probabilities",
        compare="kl_div (the same gradient), bce",
        reason="It is linear in the target, so a mixed label costs the mixture of what its parts cost, and the least "
        "expected cost is at the target's own probabilities.",
        source="Zhang et al. 2018, *mixup: beyond empirical risk minimization*; Gneiting & Raftery 2007, *Strictly "
        "proper scoring rules, prediction, and estimation*",
        trials=(
            Trial((*_DIGITS, "mix=mixup", "loss=cross_entropy,kl_div,bce")),
            Trial((*_DIGITS, "loss=cross_entropy"), label="loss=cross_entropy without mixup"),
        ),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
    ),
    Row(
        name="some_noise",
        situation="wrong labels, fewer than about 20 to 40 %",
        first="gce (q 0.7)",
        compare="cross_entropy, sce, bi_tempered",
        reason="It weighs an example's gradient by p^q, so that what the network cannot believe counts less, and still "
        "learns nearly as fast as cross-entropy.",
        source="Zhang & Sabuncu 2018, *Generalized cross entropy loss for training deep neural networks with noisy "
        "labels*; Wang et al. 2019, *Symmetric cross entropy for robust learning with noisy labels*",
        trials=_noisy(0.2, "gce,cross_entropy,sce,bi_tempered"),
        metrics=("test/accuracy",),
        baseline="loss=gce",
        gap=_WRONG.format(share="a fifth"),
    ),
    Row(
        name="much_noise",
        situation="wrong labels, more than about 20 to 40 %",
        first="nce_rce",
        compare="nce_agce, mae, cross_entropy",
        reason="Both its terms are symmetric: the sum over all classes is constant, so uniform label noise does not "
        "move its minimum; the first term learns, the second alone would learn too slowly.",
        source="Ma et al. 2020, *Normalized loss functions for deep learning with noisy labels*; Ghosh, Kumar & Sastry "
        "2017, *Robust loss functions under label noise for deep neural networks*; Zhou et al. 2021, *Asymmetric loss "
        "functions for learning with noisy labels*",
        trials=_noisy(0.6, "nce_rce,nce_agce,mae,gce,cross_entropy"),
        metrics=("test/accuracy",),
        baseline="loss=nce_rce",
        gap=_WRONG.format(share="three fifths"),
    ),
)
