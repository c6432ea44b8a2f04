"""Rows of the decision table for classification tasks."""

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
    "{share} of the training labels of each class are replaced by another class, drawn uniformly. cross_entropy has "
    "memorised many of the wrong labels after 100 epochs (`train/accuracy_given`), but not after 20: early stopping is "
    "the cheapest remedy if the right epoch is known. Validation and test labels are correct."
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
        reason="It is the negative log-likelihood of a Bernoulli distribution and a proper scoring rule. Its gradient "
        "p − y does not vanish for confident mistakes.",
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
        reason="It is the negative log-likelihood of the class and a proper scoring rule, and common learning rates "
        "and schedules were tuned for it. Squared error on the logits is about as accurate in large comparisons.",
        source="Good 1952, *Rational decisions*; Hui & Belkin 2021, *Evaluation of neural architectures trained with "
        "square loss vs cross-entropy in classification tasks*",
        sweeps=(Sweep((*_DIGITS, "loss=cross_entropy,rescaled_mse,bce")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
    ),
    Situation(
        name="multilabel",
        title="several labels per example",
        first="bce",
        compare="sigmoid_focal, if few of many labels are positive",
        reason="Labels that do not exclude each other are separate binary targets. If nearly all of them are negative, "
        "the easy negatives dominate the loss and should have less weight.",
        source="Ridnik et al. 2021, *Asymmetric loss for multi-label classification*; Lin et al. 2017, *Focal loss for "
        "dense object detection*",
        sweeps=(Sweep((*_DIGITS, "loss=bce,sigmoid_focal")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=bce",
        limits="losslab has no multi-label data set yet. The ten digits are used one-vs-all instead, so exactly one of "
        "ten labels is positive.",
    ),
    Situation(
        name="soft",
        title="soft labels: mixed images, or annotators who disagree",
        first="cross_entropy, which accepts probabilities as targets",
        compare="kl_div (the same gradient), bce",
        reason="It is linear in the target, so the loss of a mixed label is the weighted sum of the losses of its "
        "parts. It is minimal at the target probabilities.",
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
        title="wrong labels, less than about 20 to 40 %",
        first="gce (q = 0.7)",
        compare="cross_entropy, sce, bi_tempered",
        reason="It multiplies the gradient of cross-entropy by p^q, so labels to which the network assigns a low "
        "probability have less weight. It still trains nearly as fast as cross-entropy.",
        source="Zhang & Sabuncu 2018, *Generalized cross entropy loss for training deep neural networks with noisy "
        "labels*; Wang et al. 2019, *Symmetric cross entropy for robust learning with noisy labels*",
        sweeps=_noisy(0.2, "gce,cross_entropy,sce,bi_tempered"),
        metrics=("test/accuracy",),
        baseline="loss=gce",
        limits=_WRONG_LABELS.format(share="One fifth"),
    ),
    Situation(
        name="much_noise",
        title="wrong labels, more than about 20 to 40 %",
        first="nce_rce",
        compare="nce_agce, mae, cross_entropy",
        reason="Both terms, nce and rce, are symmetric: the sum of each over all classes is constant, so uniform label "
        "noise does not move the minimum. Each term alone trains too slowly; together they train fast enough.",
        source="Ma et al. 2020, *Normalized loss functions for deep learning with noisy labels*; Ghosh, Kumar & Sastry "
        "2017, *Robust loss functions under label noise for deep neural networks*; Zhou et al. 2021, *Asymmetric loss "
        "functions for learning with noisy labels*",
        sweeps=_noisy(0.6, "nce_rce,nce_agce,mae,gce,cross_entropy"),
        metrics=("test/accuracy",),
        baseline="loss=nce_rce",
        limits=_WRONG_LABELS.format(share="Three fifths"),
    ),
    Situation(
        name="imbalance",
        title="class imbalance (long tail), all classes equally important",
        first="logit_adjusted (tau = 1)",
        compare="balanced_softmax (equal at tau = 1), ldam with deferred re-weighting, class_balanced, cross_entropy",
        reason="It adds the logarithm of the class frequencies to the logits in training, so training minimises the "
        "balanced error. The effect of class weights, in contrast, fades once a network fits all training examples.",
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
        limits="In the training set the digit 0 is twenty times as frequent as the digit 9; the frequency decreases "
        "exponentially from 0 to 9 (Cao et al.). In the test set the digits are about equally frequent. Recall is the "
        "mean over the classes.",
    ),
    Situation(
        name="probabilities",
        title="the predicted probabilities are used",
        first="cross_entropy, then temperature scaling fitted on validation data (`losslab evaluate RUN_FOLDER "
        "--calibrate temperature`)",
        compare="brier, label_smoothing, focal, focal annealed to cross_entropy (gamma from 2 to 0)",
        reason="Only a proper scoring rule has its minimum at the true probabilities. label_smoothing and focal move "
        "the minimum towards less confident predictions: this counteracts overconfidence, and makes a calibrated "
        "network underconfident.",
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
        reason="A network that cannot fit its training data does not overfit. Losses that give hard examples less "
        "weight make it fit even less.",
        source="Hui & Belkin 2021, as above; Ma et al. 2020, as above, for underfitting of robust losses",
        sweeps=(Sweep((*_DIGITS, "model.hidden=[8]", "loss=cross_entropy,rescaled_mse,label_smoothing,gce")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
    ),
    Situation(
        name="finetuning",
        title="transfer: the features of a network are reused, fixed or fine-tuned",
        first="cross_entropy, for pretraining and for fine-tuning",
        compare="label_smoothing, cosine_softmax",
        reason="Networks trained with losses that beat cross_entropy on ImageNet had fixed features that transferred "
        "worse. When the whole network was fine-tuned, the loss of the pretraining mattered little.",
        source="Kornblith et al. 2021, *Why do better loss functions lead to less transferable features?*",
        setup=_TEACHER,
        sweeps=(Sweep((*_LARGE, *_FROM_TEACHER, "loss=cross_entropy,label_smoothing,rescaled_mse")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
        limits="There is no second image data set that needs no download. The runs show how to fine-tune with another "
        "loss (`ckpt_path=`), on the data of the pretraining; they do not measure transfer. All seeds share one split "
        "and the same initial weights, so the intervals include the effect of the batch order only.",
    ),
    Situation(
        name="distillation",
        title="knowledge distillation from a large network to a small one",
        first="distillation (T² KL, mixed with cross_entropy)",
        compare="cross_entropy without a teacher; label_smoothing",
        reason="The teacher's probabilities of the wrong classes show which classes are similar; labels do not. Train "
        "the teacher without label smoothing, which removes this information.",
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
        limits="All seeds share one split of the data, because the teacher was trained on its training part.",
    ),
)
