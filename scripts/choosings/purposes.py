"""The rows of classification in which it is the purpose that decides: rare classes, probabilities, other networks."""

from choosings.row import Row, Trial

_SMALL = ("model=mlp", "data=digits", "data.size=8", "data.batch_size=128")
_LARGE = (*_SMALL, "model.hidden=[256,256]")
_FROM_TEACHER = ("ckpt_path=outputs/teacher/weights.pth", "trainer.max_epochs=5")
_DIGITS = (*_SMALL, "trainer.max_epochs=20", "data.split_seed=${seed}")
_TAIL = ("imbalance=long_tail", "imbalance.ratio=20")
_ANNEALED = ("callbacks=anneal", "callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0")
_LAST = "trainer.check_val_every_n_epoch=20"
_TEACHER = "python train.py model=mlp 'model.hidden=[256,256]' data=digits data.size=8 run_dir=outputs/teacher"

ROWS = (
    Row(
        name="imbalance",
        situation="long tail, imbalance: every class matters alike",
        first="logit_adjusted (tau 1)",
        compare="balanced_softmax (the same at tau 1), ldam with deferred re-weighting, class_balanced, cross_entropy",
        reason="Adding the logarithm of the class frequencies to the logits in training makes the balanced error what "
        "is minimised, while the effect of class weights fades once a network fits all its training examples.",
        source="Menon et al. 2021, *Long-tail learning via logit adjustment*; Ren et al. 2020, *Balanced meta-softmax "
        "for long-tailed visual recognition*; Cao et al. 2019, *Learning imbalanced datasets with "
        "label-distribution-aware margin loss*; Cui et al. 2019, *Class-balanced loss based on effective number of "
        "samples*; Byrd & Lipton 2019, *What is the effect of importance weighting in deep learning?*",
        trials=(
            Trial((*_DIGITS, *_TAIL, "loss=logit_adjusted,balanced_softmax,class_balanced,cross_entropy")),
            Trial(
                (*_DIGITS, *_TAIL, "loss=ldam", "callbacks=deferred_reweighting", _LAST),
                bare=False,
                label="loss=ldam callbacks=deferred_reweighting",
            ),
        ),
        metrics=("test/recall", "test/accuracy"),
        baseline="loss=logit_adjusted",
        gap="Of the digits in training the 0 is twenty times as frequent as the 9, in between as in Cao et al.; in the "
        "test set they are about equally frequent. Recall is the mean over the classes.",
    ),
    Row(
        name="probabilities",
        situation="the probabilities are used downstream",
        first="cross_entropy, then a temperature fitted on validation data",
        compare="brier, label_smoothing, focal, focal annealed to cross_entropy",
        reason="Only a proper score is least at the true probabilities; label smoothing and focal move that minimum on "
        "purpose, which offsets overconfidence where there is some and makes underconfident where there is none.",
        source="Gneiting & Raftery 2007, *Strictly proper scoring rules, prediction, and estimation*; Guo et al. 2017, "
        "*On calibration of modern neural networks*; Mukhoti et al. 2020, *Calibrating deep neural networks using "
        "focal loss*",
        trials=(
            Trial((*_DIGITS, "loss=cross_entropy,brier,label_smoothing,focal")),
            Trial((*_DIGITS, "loss=focal", *_ANNEALED, _LAST), bare=False, label="loss=focal, gamma 2 to 0"),
        ),
        metrics=("test/nll", "test/ece"),
        baseline="loss=cross_entropy",
    ),
    Row(
        name="small",
        situation="a small network, trained from scratch",
        first="cross_entropy",
        compare="rescaled_mse, label_smoothing, gce",
        reason="A network that cannot fit its training data needs no protection from fitting them too well, and losses "
        "that turn hard examples down make it fit less.",
        source="Hui & Belkin 2021, as above; Ma et al. 2020, as above, for underfitting of robust losses",
        trials=(Trial((*_DIGITS, "model.hidden=[8]", "loss=cross_entropy,rescaled_mse,label_smoothing,gce")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
    ),
    Row(
        name="finetuning",
        situation="a network whose features are reused: fixed, or fine-tuned",
        first="cross_entropy, for the features and for the fine-tuning",
        compare="label_smoothing, cosine_softmax",
        reason="On ImageNet losses that beat it there gave fixed features that transfer worse, and once the whole "
        "network was fine-tuned the loss it was trained with mattered little.",
        source="Kornblith et al. 2021, *Why do better loss functions lead to less transferable features?*",
        before=_TEACHER,
        trials=(Trial((*_LARGE, *_FROM_TEACHER, "loss=cross_entropy,label_smoothing,rescaled_mse")),),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=cross_entropy",
        gap="Offline there is no second data set of images: the runs show how one fine-tunes under another loss "
        "(`ckpt_path=`), on the data the network already knows, and nothing of transfer. All seeds share one split and "
        "one start, so the intervals cover the order of the batches alone.",
    ),
    Row(
        name="distillation",
        situation="a large network teaches a small one",
        first="distillation (T² KL, mixed with cross_entropy)",
        compare="cross_entropy without a teacher; label_smoothing",
        reason="The teacher's probabilities of the wrong classes say which classes resemble each other, which labels "
        "do not; train the teacher without label smoothing, which erases that.",
        source="Hinton, Vinyals & Dean 2015, *Distilling the knowledge in a neural network*; Müller, Kornblith & "
        "Hinton 2019, *When does label smoothing help?*",
        before=_TEACHER,
        trials=(
            Trial(
                (*_SMALL, "trainer.max_epochs=20", "model.hidden=[8]", "loss=distillation", "teacher=outputs/teacher")
            ),
            Trial((*_SMALL, "trainer.max_epochs=20", "model.hidden=[8]", "loss=cross_entropy,label_smoothing")),
        ),
        metrics=("test/accuracy", "test/nll"),
        baseline="loss=distillation teacher=outputs/teacher",
        gap="All seeds share one split of the data, because the teacher has seen its training part.",
    ),
)
