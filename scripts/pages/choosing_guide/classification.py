"""Rows of the decision table for classification tasks."""

from pages.choosing_guide.situation import Situation, study
from pages.study import Study

_RACE = "logger=none hydra.launcher.fuse=64 study.first_seeds=20 study.max_seeds=40"
_ALONE = "logger=none study.tune_seeds=2 study.first_seeds=10 study.max_seeds=20"
"""For runs that cannot train as one group, which take longer."""
_LAST = "trainer.max_epochs=20 trainer.check_val_every_n_epoch=20"
_SMALL = "model=mlp data=digits data.size=8 data.batch_size=128 optimizer.lr=0.01"
_DIGITS = f"{_SMALL} 'data.split_seed=${{seed}}'"
_NO_POSTHOC = "study.posthoc=false"
_WRONG_LABELS = (
    "{share} of the training labels of each class are replaced by another class, drawn uniformly: artificial noise, "
    "because human noise needs a download (`data=cifar10 noise=human`). Validation and test labels are correct. The "
    "row *best epoch* validates after each epoch and keeps the best weights, which is early stopping; all other rows "
    "train for 100 epochs. The tuning chooses low rates, at which even cross_entropy does not come to memorise the "
    "wrong labels; at usual rates, [it does](lessons.md#robust_losses_under_label_noise)."
)
_EPOCHS = {"trainer.check_val_every_n_epoch=100": "", "trainer.check_val_every_n_epoch=1": "(best epoch)"}


def _noisy(name: str, rate: float, losses: str) -> Study:
    return study(
        name, _DIGITS, "trainer.max_epochs=100 trainer.check_val_every_n_epoch=100 noise=symmetric",
        f"noise.rate={rate} logger=none hydra.launcher.fuse=64 study.first_seeds=10 study.max_seeds=20", _NO_POSTHOC,
        f"loss={losses}",
        """'study.groups=["loss=cross_entropy trainer.check_val_every_n_epoch=1"]'""",
        f"study.reference=loss={losses.partition(',')[0]}",
    )  # fmt: skip


SITUATIONS = (
    Situation(
        title="binary classification",
        first="bce",
        reason="It is the negative log-likelihood of a Bernoulli distribution and a proper scoring rule. Its gradient "
        "p − y does not vanish for confident mistakes.",
        source="Cox 1958, *The regression analysis of binary sequences*",
        experiments=(
            study(
                "binary",
                "model=mlp data=breast_cancer 'data.split_seed=${seed}'",
                _LAST,
                _RACE,
                _NO_POSTHOC,
                "loss=bce,squared_hinge,mse study.reference=loss=bce",
            ),
        ),
        limits="There are 85 test examples, so an accuracy changes in steps of 1.2 points.",
    ),
    Situation(
        title="multi-class classification",
        first="cross_entropy",
        reason="It is the negative log-likelihood of the class and a proper scoring rule, and common learning rates "
        "and schedules were tuned for it. Squared error on the logits is about as accurate in large comparisons.",
        source="Good 1952, *Rational decisions*; Hui & Belkin 2021, *Evaluation of neural architectures trained with "
        "square loss vs cross-entropy in classification tasks*",
        experiments=(
            study(
                "multiclass",
                _DIGITS,
                _LAST,
                _RACE,
                _NO_POSTHOC,
                "loss=cross_entropy,rescaled_mse,label_smoothing,bce study.reference=loss=cross_entropy",
            ),
        ),
    ),
    Situation(
        title="several labels per example",
        first="bce; if few of many labels are positive, also try sigmoid_focal",
        reason="Labels that do not exclude each other are separate binary targets. If nearly all of them are negative, "
        "the easy negatives dominate the loss and should have less weight.",
        source="Ridnik et al. 2021, *Asymmetric loss for multi-label classification*; Lin et al. 2017, *Focal loss for "
        "dense object detection*",
        experiments=(
            study(
                "multilabel",
                "model=mlp data=multilabel_synthetic 'data.split_seed=${seed}' optimizer.lr=0.01",
                _LAST,
                _RACE,
                "loss=bce,sigmoid_focal study.metric=f1 study.reference=loss=bce",
            ),
        ),
        recommended=("sigmoid_focal",),
        limits="The data are synthetic: 2 of 40 labels are positive on average. F1 is the mean over the labels of the "
        "harmonic mean of precision and recall. Without fitted thresholds, a label is predicted if its probability is "
        "above 0.5. This is to the disadvantage of sigmoid_focal, which gives label 1 less weight (alpha = 0.25) and "
        "so predicts smaller probabilities; a metric without thresholds could be in its favour. The row *f1 "
        "thresholds* fits a threshold for each label to the validation data, for bce only; this costs no training.",
    ),
    Situation(
        title="soft labels: mixed images, or annotators who disagree",
        first="cross_entropy, which accepts probabilities as targets",
        reason="It is linear in the target, so the loss of a mixed label is the weighted sum of the losses of its "
        "parts. It is minimal at the target probabilities. kl_div has the same gradient.",
        source="Zhang et al. 2018, *mixup: beyond empirical risk minimization*; Gneiting & Raftery 2007, *Strictly "
        "proper scoring rules, prediction, and estimation*",
        experiments=(
            study(
                "soft",
                _DIGITS,
                _LAST,
                _ALONE,
                _NO_POSTHOC,
                """
                'study.groups=["loss=cross_entropy mix=mixup","loss=bce mix=mixup","loss=cross_entropy"]'
                'study.reference="cross_entropy mix=mixup"'
                """,
            ),
        ),
        words={
            "cross_entropy mix=mixup": "cross_entropy with mixup",
            "bce mix=mixup": "bce with mixup",
            "cross_entropy": "cross_entropy without mixup",
        },
    ),
    Situation(
        title="wrong labels, less than about 20 to 40 %",
        first="gce (q = 0.7)",
        reason="It multiplies the gradient of cross-entropy by p^q, so labels to which the network assigns a low "
        "probability have less weight. It still trains nearly as fast as cross-entropy.",
        source="Zhang & Sabuncu 2018, *Generalized cross entropy loss for training deep neural networks with noisy "
        "labels*; Wang et al. 2019, *Symmetric cross entropy for robust learning with noisy labels*",
        experiments=(_noisy("some_noise", 0.2, "gce,cross_entropy,sce,bi_tempered"),),
        words=_EPOCHS,
        limits=_WRONG_LABELS.format(share="One fifth"),
    ),
    Situation(
        title="wrong labels, more than about 20 to 40 %",
        first="nce_rce",
        reason="Both terms, nce and rce, are symmetric: the sum of each over all classes is constant, so uniform label "
        "noise does not move the minimum. Each term alone trains too slowly; together they train fast enough.",
        source="Ma et al. 2020, *Normalized loss functions for deep learning with noisy labels*; Ghosh, Kumar & Sastry "
        "2017, *Robust loss functions under label noise for deep neural networks*; Zhou et al. 2021, *Asymmetric loss "
        "functions for learning with noisy labels*",
        experiments=(_noisy("much_noise", 0.6, "nce_rce,nce_agce,mae,gce,cross_entropy"),),
        words=_EPOCHS,
        limits=_WRONG_LABELS.format(share="Three fifths"),
    ),
    Situation(
        title="class imbalance (long tail), all classes equally important",
        first="logit_adjusted (tau = 1)",
        reason="It adds the logarithm of the class frequencies to the logits in training, so training minimises the "
        "balanced error. At tau = 1 it equals balanced_softmax. The effect of class weights, in contrast, fades once a "
        "network fits all training examples.",
        source="Menon et al. 2021, *Long-tail learning via logit adjustment*; Ren et al. 2020, *Balanced meta-softmax "
        "for long-tailed visual recognition*; Cao et al. 2019, *Learning imbalanced datasets with "
        "label-distribution-aware margin loss*; Cui et al. 2019, *Class-balanced loss based on effective number of "
        "samples*; Byrd & Lipton 2019, *What is the effect of importance weighting in deep learning?*",
        experiments=(
            study(
                "imbalance",
                _DIGITS,
                "imbalance=long_tail imbalance.ratio=20",
                _LAST,
                _RACE,
                """
                study.metric=recall loss=logit_adjusted,class_balanced,cross_entropy
                'study.groups=["loss=ldam callbacks=deferred_reweighting"]' study.reference=loss=logit_adjusted
                """,
            ),
        ),
        recommended=("cross_entropy + logit adjustment",),
        words={"callbacks=deferred_reweighting": "(deferred re-weighting)"},
        limits="In the training set the digit 0 is twenty times as frequent as the digit 9; the frequency decreases "
        "exponentially from 0 to 9 (Cao et al.). In the validation and test sets the digits are about equally "
        "frequent. Recall is the mean over the classes. The row *logit adjustment* divides the predicted probabilities "
        "by the class frequencies after training, which Menon et al. also propose.",
    ),
    Situation(
        title="the predicted probabilities are used",
        first="cross_entropy, then temperature scaling fitted on validation data (`losslab evaluate RUN_FOLDER "
        "--calibrate temperature`)",
        reason="Only a proper scoring rule has its minimum at the true probabilities. label_smoothing and focal move "
        "the minimum towards less confident predictions: this counteracts overconfidence, and makes a calibrated "
        "network underconfident.",
        source="Gneiting & Raftery 2007, *Strictly proper scoring rules, prediction, and estimation*; Guo et al. 2017, "
        "*On calibration of modern neural networks*; Mukhoti et al. 2020, *Calibrating deep neural networks using "
        "focal loss*",
        experiments=(
            study(
                "probabilities",
                _DIGITS,
                _LAST,
                _RACE,
                "study.metric=nll loss=cross_entropy,brier,label_smoothing,focal study.reference=loss=cross_entropy",
            ),
        ),
        recommended=("cross_entropy + temperature",),
        limits="The reference is cross_entropy without temperature scaling.",
    ),
    Situation(
        title="a small network, trained from scratch",
        first="cross_entropy",
        reason="A network that cannot fit its training data does not overfit. Losses that give hard examples less "
        "weight make it fit even less.",
        source="Hui & Belkin 2021, as above; Ma et al. 2020, as above, for underfitting of robust losses",
        experiments=(
            study(
                "small",
                _DIGITS,
                "model.hidden=[8]",
                _LAST,
                _RACE,
                _NO_POSTHOC,
                "loss=cross_entropy,rescaled_mse,label_smoothing,gce study.reference=loss=cross_entropy",
            ),
        ),
    ),
    Situation(
        title="transfer: a pretrained network is fine-tuned on other classes",
        first="cross_entropy, for pretraining and for fine-tuning",
        reason="Networks trained with losses that beat cross_entropy on ImageNet had fixed features that transferred "
        "worse. When the whole network was fine-tuned, the loss of the pretraining mattered little.",
        source="Kornblith et al. 2021, *Why do better loss functions lead to less transferable features?*",
        experiments=(
            study(
                "finetuning",
                """
                model=mlp model.hidden=[256,256] data=digits data.size=8 +data.classes=[5,6,7,8,9]
                'data.split_seed=${seed}' trainer.max_epochs=5 trainer.check_val_every_n_epoch=5
                """,
                _ALONE,
                _NO_POSTHOC,
                """
                loss=cross_entropy,label_smoothing,rescaled_mse ckpt_path=outputs/pretrained
                'study.groups=["loss=cross_entropy ckpt_path=null"]'
                'study.reference="cross_entropy ckpt_path=outputs/pretrained"'
                """,
                setup="python train.py model=mlp 'model.hidden=[256,256]' data=digits data.size=8 "
                "'+data.classes=[0,1,2,3,4]' loss=cross_entropy run_dir=outputs/pretrained",
            ),
        ),
        words={"ckpt_path=outputs/pretrained": "", "ckpt_path=null": "(not pretrained)"},
        limits="A network that was trained on the digits 0 to 4 with cross_entropy is fine-tuned on 5 to 9, for 5 "
        "epochs, all layers with one learning rate; the last layer too starts from its trained weights. There is one "
        "pretrained network, so the intervals are about the splits and the batch order. The runs compare losses of the "
        "fine-tuning only: fixed features, and other losses in the pretraining, are not tested here.",
    ),
    Situation(
        title="knowledge distillation from a large network to a small one",
        first="distillation (T² KL, mixed with cross_entropy)",
        reason="The teacher's probabilities of the wrong classes show which classes are similar; labels do not. Train "
        "the teacher with cross_entropy and without label smoothing, which removes this information.",
        source="Hinton, Vinyals & Dean 2015, *Distilling the knowledge in a neural network*; Müller, Kornblith & "
        "Hinton 2019, *When does label smoothing help?*",
        experiments=(
            study(
                "distillation",
                _SMALL,
                "model.hidden=[8]",
                _LAST,
                _ALONE,
                _NO_POSTHOC,
                """
                loss=cross_entropy,label_smoothing 'study.groups=["loss=distillation teacher=outputs/teacher"]'
                study.reference=loss=distillation
                """,
                setup="python train.py model=mlp 'model.hidden=[256,256]' data=digits data.size=8 loss=cross_entropy "
                "run_dir=outputs/teacher",
            ),
        ),
        words={"teacher=outputs/teacher": ""},
        limits="All seeds share one split of the data, because the teacher was trained on its training part.",
    ),
)
