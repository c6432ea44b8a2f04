"""Losses that are made of others: sums, smoothed targets, a teacher."""

import shutil

import pytest
import torch

from losslab.errors import LabError
from losslab.losses import BCE, MSE, CrossEntropy, Distillation, Focal, KLDiv, Smoothed, WeightedSum, catalog
from losslab.runs import RunFolder
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.config import compose
from losslab.training.teacher import _Teacher

Z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
T = V.softmax(1)


def weighted(**terms):
    return WeightedSum({name: {"loss": loss, "weight": weight} for name, (loss, weight) in terms.items()})


def test_a_weighted_sum_is_the_sum_of_its_terms():
    loss = weighted(ce=(CrossEntropy(), 0.25), focal=(Focal(), 3.0))
    expected = 0.25 * CrossEntropy().per_example(Z, Y) + 3 * Focal().per_example(Z, Y)
    torch.testing.assert_close(loss.per_example(Z, Y), expected)


def test_terms_are_reported_without_their_weights():
    loss = weighted(ce=(CrossEntropy(), 0.25), focal=(Focal(), 3.0))
    value, weight, terms = loss.total(Z, Y)
    torch.testing.assert_close(terms["ce"] / weight, CrossEntropy()(Z, Y))
    torch.testing.assert_close(terms["focal"] / weight, Focal()(Z, Y))
    torch.testing.assert_close(value / weight, loss(Z, Y))
    assert not terms["ce"].requires_grad


def test_a_sum_of_losses_with_class_weights_is_the_sum_of_their_weighted_means():
    weight = [1.0, 2.0, 0.5, 1.0, 3.0]
    loss = weighted(ce=(CrossEntropy(weight=weight), 1.0), focal=(Focal(weight=weight), 2.0))
    torch.testing.assert_close(loss(Z, Y), CrossEntropy(weight=weight)(Z, Y) + 2 * Focal(weight=weight)(Z, Y))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "got none"),
        ({"a": (CrossEntropy(), 1.0), "b": (BCE(), -1.0)}, "weight must be a number in"),
        ({"a": (Smoothed(CrossEntropy()), 1.0), "b": (MSE(), 1.0), "c": (KLDiv(), 1.0)}, None),
        ({"a": (CrossEntropy(weight=[1.0, 2.0]), 1.0), "b": (CrossEntropy(), 1.0)}, "same class weights, ignore_index"),
        ({"a": (Distillation(), 1.0), "b": (Distillation(), 1.0)}, "can need a teacher"),
    ],
)
def test_terms_that_do_not_fit_each_other_are_rejected(terms, message):
    if message is None:
        assert weighted(**terms).per_example(Z, T).shape == (8,)
        return
    with pytest.raises(LabError, match=message):
        weighted(**terms)


def test_smoothed_cross_entropy_equals_label_smoothing():
    hot = torch.eye(5, dtype=torch.float64)[Y]
    torch.testing.assert_close(Smoothed(CrossEntropy(), 0.3)(Z, hot), CrossEntropy(label_smoothing=0.3)(Z, Y))


def test_smoothed_needs_probabilities():
    with pytest.raises(LabError, match="class probabilities with one set of outputs: got Distillation"):
        Smoothed(Distillation())


def test_distillation_at_temperature_1_is_kl_to_the_probabilities_of_the_teacher():
    both = torch.cat([Z, V], 1)
    torch.testing.assert_close(Distillation(1.0).per_example(both, Y), KLDiv().per_example(Z, V.softmax(1)))


def test_gradient_of_distillation_keeps_its_size_at_a_high_temperature():
    # For T → ∞ the gradient is that of the squared distance of the centred logits, (z - v) / K: Hinton et al., eq. 4.
    centred = (Z - Z.mean(1, keepdim=True)) - (V - V.mean(1, keepdim=True))
    student = Z.clone().requires_grad_()
    Distillation(1e4).per_example(torch.cat([student, V], 1), Y).sum().backward()
    torch.testing.assert_close(student.grad, centred / 5, rtol=1e-3, atol=1e-4)


def test_a_missing_teacher_or_a_teacher_with_other_classes_is_rejected():
    with pytest.raises(LabError, match="teacher=RUN_FOLDER"):
        Distillation().loss_inputs(Z, Z, torch.nn.Identity())
    with pytest.raises(LabError, match="the teacher has 3 outputs and the student 5"):
        Distillation(teacher=torch.nn.Linear(5, 3)).loss_inputs(Z, Z, torch.nn.Identity())


@pytest.fixture(scope="module")
def teacher(train):
    return train("model=mlp", "data=digits", "loss=cross_entropy", "trainer.max_epochs=5", "logger=none")[0]


def test_a_student_learns_from_a_run_and_is_evaluated_without_it(train, teacher, tmp_path):
    run = shutil.copytree(teacher.folder.path, tmp_path / "teacher")
    student, results = train(
        "model=mlp", "model.hidden=[16]", "data=digits", "loss=distillation", f"teacher={run}",
        "trainer.max_epochs=5", "logger=none",
    )  # fmt: skip
    assert results["train/loss/teacher"] < 5
    assert sum(p.numel() for p in student.learner.parameters()) == sum(
        p.numel() for p in student.learner.network.parameters()
    )
    shutil.rmtree(run)
    again = lab.rebuild(student.folder, student.folder.read_config())
    weights.load(again.learner, student.folder.best)
    measured = lab.evaluate(again, "test")
    assert measured["test/loss/teacher"] == pytest.approx(results["test/loss/teacher"], rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_teacher_gives_its_logits_of_any_margin(temperature, dtype):
    logits = torch.tensor([[0.0, -100.0, -300.0], [12.0, 0.0, 4.0]]).to(dtype)
    given = _Teacher(torch.nn.Identity(), CrossEntropy(), outputs=3)(logits)
    soft = (given.float() / temperature).softmax(1)
    torch.testing.assert_close(soft, (logits.float() / temperature).softmax(1), rtol=1e-5, atol=1e-9)


def test_a_teacher_trained_one_vs_all_gives_the_logarithms_of_its_probabilities():
    given = _Teacher(torch.nn.Identity(), BCE(), outputs=5)(Z)
    torch.testing.assert_close(given, Z.sigmoid().log())


def test_a_student_with_a_teacher_weight_of_0_learns_as_without_a_teacher(train, teacher):
    common = ("model=mlp", "data=digits", "trainer.max_epochs=2", "logger=none")
    taught, _ = train(
        *common, "loss=distillation", f"teacher={teacher.folder.path}",
        "loss.terms.labels.weight=1", "loss.terms.teacher.weight=0",
    )  # fmt: skip
    alone, _ = train(*common, "loss=cross_entropy")
    for ours, theirs in zip(taught.learner.parameters(), alone.learner.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_command_without_a_teacher_says_what_to_add():
    with pytest.raises(LabError, match=r"a value is missing: add teacher=\.\.\."):
        compose(["model=mlp", "data=digits", "loss=distillation"], "unused")


def test_a_teacher_that_is_not_a_run_folder_is_rejected(build, tmp_path):
    with pytest.raises(LabError, match="is not a run folder"):
        build("model=mlp", "data=digits", "loss=distillation", f"teacher={tmp_path}")


def test_each_term_is_logged_by_its_name(train):
    experiment, results = train("model=mlp", "data=digits", "loss=weighted_sum", "trainer.max_epochs=1", "logger=none")
    names = experiment.config["loss"]["terms"]
    parts = [results[f"train/loss/{name}"] for name in names]
    assert results["train/loss"] == pytest.approx(sum(parts))
    header = RunFolder(experiment.folder.path).history.read_text().splitlines()[0]
    assert all(f"{split}/loss/{name}" in header for split in ("train", "val") for name in names)


def test_the_card_of_a_sum_follows_from_its_terms():
    card = catalog.make("weighted_sum").card
    assert card.convex is None
    assert card.uniform == "1.0 * (log(K)) + 1.0 * (((K - 1) / K) ** (2.0) * log(K))"


def test_the_targets_that_a_loss_accepts_are_known_without_instantiating_it():
    for name in catalog.names():
        assert catalog.wants(name) == catalog.make(name).wants, name
