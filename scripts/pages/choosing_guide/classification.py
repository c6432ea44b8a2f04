"""Situations of classification: kinds of targets, wrong labels, rare classes, probabilities, other networks."""

from pages.choosing_guide.situation import Situation, Sweep

_SPLIT = ("data.split_seed=${seed}", "trainer.max_epochs=20")
_SMALL = ("model=mlp", "data=digits", "data.size=8", "data.batch_size=128")
_LARGE = (*_SMALL, "model.hidden=[256,256]")
_DIGITS = (*_SMALL, *_SPLIT)
_LONG = (*_SMALL, "data.split_seed=${seed}", "trainer.max_epochs=100")
_FROM_TEACHER = ("ckpt_path=outputs/teacher/weights.pth", "trainer.max_epochs=5")
_TEACHER = "python train.py model=mlp 'model.hidden=[256,256]' data=digits data.size=8 run_dir=outputs/teacher"
_TAIL = ("imbalance=long_tail", "imbalance.ratio=20")
_ANNEALED = ("callbacks=anneal", "callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0")
_LAST = "trainer.check_val_every_n_epoch=20"
_WRONG_LABELS = (
    "Of each class {share} of the training labels are any other class alike. After 100 epochs cross_entropy has learnt "
    "many of them by heart (`train/accuracy_given`); after 20 it has not: stopping early is the cheapest tolerance, if "
    "one knows when. Validation and test labels are right."
)


def _noisy(rate: float, losses: str) -> tuple[Sweep, ...]:
    noise = ("noise=symmetric", f"noise.rate={rate}")
    early = Sweep((*_DIGITS, *noise, "loss=cross_entropy"), label="loss=cross_entropy, 20 epochs")
    return Sweep((*_LONG, *noise, f"loss={losses}")), early


SITUATIONS = (
    Situation(
        name="binary",
        title="binary classification",
        first="bce",
        compare="squared_hinge, mse",
        reason="It is the likelihood of a yes or no, proper, and its gradient p − y does not vanish on what is "
        "confidently wrong.",
        source="Cox 1958, *The regression analysis of binary sequences*",
        sweeps=(Sweep(("model=mlp", "data=breast_cancer", *_SPLIT, "loss=bce,squared_hinge,mse")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=bce",
        test_examples=85,
    ),
    Situation(
        name="multiclass",
        title="multi-class classification",
        first="cross_entropy",
        compare="rescaled_mse, bce (one-vs-all)",
        reason="It is the likelihood of the class, proper, and what everyone's settings were tuned for; squared error "
        "on the logits does about as well in large comparisons.",
        source="Good 1952, *Rational decisions*; Hui & Belkin 2021, *Evaluation of neural architectures trained with "
        "square loss vs cross-entropy in classification tasks*",
        sweeps=(Sweep((*_DIGITS, "loss=cross_entropy,rescaled_mse,bce")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
    ),
    Situation(
        name="multilabel",
        title="several labels at once",
        first="bce",
        compare="sigmoid_focal, where few of many labels are yes",
        reason="Labels that do not exclude each other are so many yes-or-no questions; where nearly all answers are "
        "no, the easy ones drown the others and want turning down.",
        source="Ridnik et al. 2021, *Asymmetric loss for multi-label classification*; Lin et al. 2017, *Focal loss for "
        "dense object detection*",
        sweeps=(Sweep((*_DIGITS, "loss=bce,sigmoid_focal")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=bce",
        limits="There is no multi-label data set yet: the ten digits, one-vs-all, stand in, where exactly one label of "
        "ten is yes.",
    ),
    Situation(
        name="soft",
        title="soft labels: mixed images, or annotators who disagree",
        first="cross_entropy, which takes probabilities",
        compare="kl_div (the same gradient), bce",
        reason="It is linear in the target, so a mixed label costs the mixture of what its parts cost, and the least "
        "expected cost is at the target's own probabilities.",
        source="Zhang et al. 2018, *mixup: beyond empirical risk minimization*; Gneiting & Raftery 2007, *Strictly "
        "proper scoring rules, prediction, and estimation*",
        sweeps=(
            Sweep((*_DIGITS, "mix=mixup", "loss=cross_entropy,kl_div,bce")),
            Sweep((*_DIGITS, "loss=cross_entropy"), label="loss=cross_entropy without mixup"),
        ),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
    ),
    Situation(
        name="some_noise",
        title="wrong labels, fewer than about 20 to 40 %",
        first="gce (q 0.7)",
        compare="cross_entropy, sce, bi_tempered",
        reason="It weighs an example's gradient by p^q, so that what the network cannot believe counts less, and still "
        "learns nearly as fast as cross-entropy.",
        source="Zhang & Sabuncu 2018, *Generalized cross entropy loss for training deep neural networks with noisy "
        "labels*; Wang et al. 2019, *Symmetric cross entropy for robust learning with noisy labels*",
        sweeps=_noisy(0.2, "gce,cross_entropy,sce,bi_tempered"),
        metrics=("test/accuracy",),
        baseline="loss=gce",
        limits=_WRONG_LABELS.format(share="a fifth"),
    ),
    Situation(
        name="much_noise",
        title="wrong labels, more than about 20 to 40 %",
        first="nce_rce",
        compare="nce_agce, mae, cross_entropy",
        reason="Both its terms are symmetric: the sum over all classes is constant, so uniform label noise does not "
        "move its minimum; the first term learns, the second alone would learn too slowly.",
        source="Ma et al. 2020, *Normalized loss functions for deep learning with noisy labels*; Ghosh, Kumar & Sastry "
        "2017, *Robust loss functions under label noise for deep neural networks*; Zhou et al. 2021, *Asymmetric loss "
        "functions for learning with noisy labels*",
        sweeps=_noisy(0.6, "nce_rce,nce_agce,mae,gce,cross_entropy"),
        metrics=("test/accuracy",),
        baseline="loss=nce_rce",
        limits=_WRONG_LABELS.format(share="three fifths"),
    ),
    Situation(
        name="imbalance",
        title="long tail, imbalance: every class matters alike",
        first="logit_adjusted (tau 1)",
        compare="balanced_softmax (the same at tau 1), ldam with deferred re-weighting, class_balanced, cross_entropy",
        reason="Adding the logarithm of the class frequencies to the logits in training makes the balanced error what "
        "is minimised, while the effect of class weights fades once a network fits all its training examples.",
        source="Menon et al. 2021, *Long-tail learning via logit adjustment*; Ren et al. 2020, *Balanced meta-softmax "
        "for long-tailed visual recognition*; Cao et al. 2019, *Learning imbalanced datasets with "
        "label-distribution-aware margin loss*; Cui et al. 2019, *Class-balanced loss based on effective number of "
        "samples*; Byrd & Lipton 2019, *What is the effect of importance weighting in deep learning?*",
        sweeps=(
            Sweep((*_DIGITS, *_TAIL, "loss=logit_adjusted,balanced_softmax,class_balanced,cross_entropy")),
            Sweep(
                (*_DIGITS, *_TAIL, "loss=ldam", "callbacks=deferred_reweighting", _LAST),
                bare=False,
                label="loss=ldam callbacks=deferred_reweighting",
            ),
        ),
        metrics=("test/recall", "test/accuracy"),
        baseline="loss=logit_adjusted",
        limits="Of the digits in training the 0 is twenty times as frequent as the 9, in between as in Cao et al.; in "
        "the test set they are about equally frequent. Recall is the mean over the classes.",
    ),
    Situation(
        name="probabilities",
        title="the probabilities are used downstream",
        first="cross_entropy, then a temperature fitted on validation data",
        compare="brier, label_smoothing, focal, focal annealed to cross_entropy",
        reason="Only a proper score is least at the true probabilities; label smoothing and focal move that minimum on "
        "purpose, which offsets overconfidence where there is some and makes underconfident where there is none.",
        source="Gneiting & Raftery 2007, *Strictly proper scoring rules, prediction, and estimation*; Guo et al. 2017, "
        "*On calibration of modern neural networks*; Mukhoti et al. 2020, *Calibrating deep neural networks using "
        "focal loss*",
        sweeps=(
            Sweep((*_DIGITS, "loss=cross_entropy,brier,label_smoothing,focal")),
            Sweep((*_DIGITS, "loss=focal", *_ANNEALED, _LAST), bare=False, label="loss=focal, gamma 2 to 0"),
        ),
        metrics=("test/nll", "test/ece"),
        baseline="loss=cross_entropy",
    ),
    Situation(
        name="small",
        title="a small network, trained from scratch",
        first="cross_entropy",
        compare="rescaled_mse, label_smoothing, gce",
        reason="A network that cannot fit its training data needs no protection from fitting them too well, and losses "
        "that turn hard examples down make it fit less.",
        source="Hui & Belkin 2021, as above; Ma et al. 2020, as above, for underfitting of robust losses",
        sweeps=(Sweep((*_DIGITS, "model.hidden=[8]", "loss=cross_entropy,rescaled_mse,label_smoothing,gce")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
    ),
    Situation(
        name="finetuning",
        title="a network whose features are reused: fixed, or fine-tuned",
        first="cross_entropy, for the features and for the fine-tuning",
        compare="label_smoothing, cosine_softmax",
        reason="On ImageNet losses that beat it there gave fixed features that transfer worse, and once the whole "
        "network was fine-tuned the loss it was trained with mattered little.",
        source="Kornblith et al. 2021, *Why do better loss functions lead to less transferable features?*",
        setup=_TEACHER,
        sweeps=(Sweep((*_LARGE, *_FROM_TEACHER, "loss=cross_entropy,label_smoothing,rescaled_mse")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
        limits="Offline there is no second data set of images: the runs show how one fine-tunes under another loss "
        "(`ckpt_path=`), on the data the network already knows, and nothing of transfer. All seeds share one split and "
        "one start, so the intervals cover the order of the batches alone.",
    ),
    Situation(
        name="distillation",
        title="a large network teaches a small one",
        first="distillation (T² KL, mixed with cross_entropy)",
        compare="cross_entropy without a teacher; label_smoothing",
        reason="The teacher's probabilities of the wrong classes say which classes resemble each other, which labels "
        "do not; train the teacher without label smoothing, which erases that.",
        source="Hinton, Vinyals & Dean 2015, *Distilling the knowledge in a neural network*; Müller, Kornblith & "
        "Hinton 2019, *When does label smoothing help?*",
        setup=_TEACHER,
        sweeps=(
            Sweep(
                (*_SMALL, "trainer.max_epochs=20", "model.hidden=[8]", "loss=distillation", "teacher=outputs/teacher")
            ),
            Sweep((*_SMALL, "trainer.max_epochs=20", "model.hidden=[8]", "loss=cross_entropy,label_smoothing")),
        ),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=distillation teacher=outputs/teacher",
        limits="All seeds share one split of the data, because the teacher has seen its training part.",
    ),
)
