"""Corruption of the training data in whole runs: messages, files, training targets and metrics."""

import json
import logging
import shutil

import pytest
import torch
from PIL import Image

from losslab.analysis.compare.grouping import group_names, result_settings
from losslab.analysis.compare.read import Run
from losslab.analysis.outputs import collect_outputs
from losslab.cli import report
from losslab.data.batch import DataSpec, Examples
from losslab.data.corruption import figure, manifest
from losslab.data.corruption.label_noise import Symmetric
from losslab.errors import LabError
from losslab.models.metrics import direction
from losslab.runs import RunFolder
from losslab.runs.config import hyperparameters
from losslab.targets import Kind, Task
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.config import compose
from losslab.training.reopen import EvaluationRequest, reopen

SMALL = ("model=mlp", "data=digits", "data.size=8", "trainer.max_epochs=2", "logger=none", "callbacks=none")
NOISY = (*SMALL, "noise=symmetric", "noise.rate=0.4")
BOTH = (*NOISY, "imbalance=long_tail", "imbalance.ratio=8")


@pytest.fixture(scope="module")
def noisy_run(train):
    return train(*NOISY, "callbacks=default")


@pytest.fixture(scope="module")
def run_with_both(train):
    return train(*BOTH, "callbacks=default")


def train_split(experiment):
    experiment.data.setup()
    return experiment.data.splits["train"]


def counts(labels):
    return torch.bincount(labels, minlength=10).tolist()


def test_imbalance_is_applied_before_noise(build):
    whole, tail, both = (train_split(build(*choice)) for choice in (SMALL, (*SMALL, *BOTH[-2:]), BOTH))
    assert torch.equal(both.index, tail.index)
    assert torch.equal(both.truth, tail.truth)
    assert counts(tail.truth)[0] == counts(whole.truth)[0] == 8 * counts(tail.truth)[9]
    wrong = both.target != both.truth
    assert counts(both.truth[wrong]) == [round(0.4 * size) for size in counts(both.truth)]


def test_validation_and_test_stay_whole_and_clean(build):
    clean, both = build(*SMALL), build(*BOTH)
    for experiment in (clean, both):
        experiment.data.setup()
    for split in ("val", "test"):
        ours, theirs = clean.data.splits[split], both.data.splits[split]
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert torch.equal(theirs.target, theirs.truth)


def test_corruption_depends_on_the_seed_and_not_on_the_loss(build):
    targets = [
        train_split(build(*NOISY, *more)).target
        for more in ((), ("loss=focal",), ("loss=gce", "optimizer=sgd"), ("seed=1",))
    ]
    assert torch.equal(targets[0], targets[1])
    assert torch.equal(targets[0], targets[2])
    assert not torch.equal(targets[0], targets[3])


def test_corruption_changes_neither_weights_nor_batch_order(build):
    clean, noisy = build(*SMALL), build(*NOISY)
    for a, b in zip(clean.learner.parameters(), noisy.learner.parameters(), strict=True):
        assert torch.equal(a, b)
    for experiment in (clean, noisy):
        experiment.data.setup()
    for a, b in zip(clean.data.train_dataloader(), noisy.data.train_dataloader(), strict=True):
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.truth, b.truth)


def test_class_counts_are_those_of_the_given_labels(build):
    experiment = build(*BOTH)
    split = train_split(experiment)
    assert experiment.data.class_counts.tolist() == counts(split.target)
    assert counts(split.target) != counts(split.truth)


def test_the_manifest_describes_the_training_data(run_with_both):
    experiment, _ = run_with_both
    split, said = train_split(experiment), json.loads(experiment.folder.faults.read_text())
    tail, noise = said["faults"]
    assert (tail["kind"], tail["parameters"]) == ("long_tail", {"ratio": 8, "seed": 0})
    assert (noise["kind"], noise["parameters"]) == ("symmetric", {"rate": 0.4, "seed": 0})
    assert said["examples"] == tail["examples"] == split.size
    assert tail["examples_before"] == 1257
    assert list(tail["classes"].values()) == list(noise["classes_before"].values()) == counts(split.truth)
    assert list(noise["classes"].values()) == counts(split.target)
    for true in range(10):
        for given in range(10):
            count = int(((split.truth == true) & (split.target == given)).sum())
            assert noise["transitions"][str(true)].get(str(given), 0) == count
    assert noise["changed"] == int((split.target != split.truth).sum())
    assert noise["realised_rate"] == pytest.approx(noise["changed"] / noise["of"], abs=1e-6)


def test_a_run_without_corruption_has_no_manifest(train):
    experiment, results = train(*SMALL)
    assert not experiment.folder.faults.exists()
    assert "train/accuracy_given" not in results


def test_the_checksum_is_of_index_and_target(build):
    split = train_split(build(*NOISY))
    first = manifest.checksum(split)
    assert manifest.checksum(split._replace(truth=split.truth + 1)) == first
    for name in ("target", "index"):
        column = getattr(split, name).clone()
        column[3] += 1
        assert manifest.checksum(split._replace(**{name: column})) != first


def test_a_rebuilt_run_has_the_same_corruption_and_metrics(run_with_both):
    experiment, results = run_with_both
    folder = RunFolder(experiment.folder.path)
    assert (folder.figures / "faults.png").is_file()
    again = lab.rebuild(folder, folder.read_config())
    weights.load(again.learner, folder.best)
    assert lab.evaluate(again, "test") == {k: v for k, v in results.items() if k.startswith("test/")}
    seen = collect_outputs(again, "train")
    split = train_split(experiment)
    order = split.index.argsort()
    assert torch.equal(seen.target, split.target[order])
    assert torch.equal(seen.truth, split.truth[order])


def test_training_data_that_differ_from_the_manifest_are_refused(noisy_run, tmp_path):
    experiment, _ = noisy_run
    copy = tmp_path / "run"
    shutil.copytree(experiment.folder.path, copy)
    folder = RunFolder(copy)
    other = lab.rebuild(folder, folder.read_config() | {"noise": None})
    with pytest.raises(LabError, match=r"training data differ from the data of this run .* train again") as error:
        other.data.setup()
    assert "\n" not in str(error.value)
    config = folder.read_config()
    config["noise"]["seed"] = 5
    with pytest.raises(LabError, match="training data differ from the data of this run"):
        lab.rebuild(folder, config).data.setup()
    folder.faults.write_text("{")
    with pytest.raises(LabError, match=r"cannot read .*faults.json"):
        lab.rebuild(folder, folder.read_config())


def test_values_may_differ_from_the_manifest_in_their_last_bits_only(build):
    experiment = build("data=linear_synthetic", "noise=outliers", "logger=none", "callbacks=none")
    split, said = train_split(experiment), experiment.data.manifest
    spec, keep = experiment.data.spec, []
    for factor in (1 + 1e-6, 1.01):
        _, found = manifest.apply(split._replace(target=split.target * factor), keep, spec)
        assert found["sha256"] != said["sha256"]
        if factor < 1.001:
            manifest.verify(found, said)
        else:
            with pytest.raises(LabError, match="differ from the data of this run"):
                manifest.verify(found, said)


@pytest.mark.parametrize(
    ("overrides", "metric"), [(NOISY, "accuracy"), (("data=linear_synthetic", "noise=outliers", *SMALL[3:]), "mse")]
)
def test_given_labels_are_scored_in_addition_to_the_truth(train, overrides, metric):
    experiment, results = train(*overrides, "optimizer=adam", "optimizer.lr=0", "examine=false")
    seen = collect_outputs(experiment, "train")

    def measured(values):
        if metric == "accuracy":
            return (seen.outputs.argmax(1) == values).double().mean().item()
        return (seen.outputs - values).double().square().mean().item()

    assert results[f"train/{metric}_given"] == pytest.approx(measured(seen.target), rel=1e-5)
    assert results[f"train/{metric}"] == pytest.approx(measured(seen.truth), rel=1e-5)
    assert results[f"train/{metric}_given"] != results[f"train/{metric}"]
    assert direction(f"train/{metric}_given") == direction(metric)


def test_noisy_labels_are_mixed_and_the_truth_stays(build):
    experiment = build(*NOISY, "mix=mixup")
    split = train_split(experiment)
    loader = experiment.data.train_dataloader()
    place = {index: row for row, index in enumerate(split.index.tolist())}
    for batch in loader:
        rows = torch.tensor([place[index] for index in batch.index.tolist()])
        assert torch.equal(batch.truth, split.truth[rows])
        assert (batch.target.gather(1, split.target[rows][:, None]) > 0).all(), "the given label has a share"
    assert "train/accuracy_given" not in experiment.learner.epoch_metric_names


def test_a_mixed_run_with_noise_trains(train):
    _, results = train(*NOISY, "mix=mixup", "loss=cross_entropy")
    assert results["test/accuracy"] > 0.3


@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_image_folders_get_the_same_corruption_in_memory_or_on_disk(build, tmp_path, in_memory):
    for split, count in (("train", 12), ("val", 2), ("test", 2)):
        for shade, name in enumerate("abcd"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (60 * shade, number, 0)).save(tmp_path / split / name / f"{number}.png")
    images = (
        "model=mlp",
        "data=image_folder",
        f"data.dir={tmp_path}",
        "data.size=8",
        "data.workers=0",
        "data.flip=false",
    )
    faults = ("noise=pair_flip", "noise.rate=0.5", "imbalance=long_tail", "imbalance.ratio=4", "logger=none")
    experiment = build(*images, "data.crop=0", f"data.in_memory={in_memory}", *faults)
    experiment.data.setup()
    seen = list(experiment.data.train_dataloader())
    target, truth, index = (
        torch.cat([getattr(batch, name) for batch in seen]) for name in ("target", "truth", "index")
    )
    sizes = [12, 7, 4, 3]
    assert torch.bincount(truth).tolist() == sizes
    assert torch.bincount(truth[target != truth]).tolist() == [round(size / 2) for size in sizes]
    assert torch.equal(truth, index // 12), "an index is the place among all images of the split"
    assert experiment.data.class_counts.tolist() == torch.bincount(target).tolist()


def test_poisson_nll_trains_on_counts_with_outliers(train):
    _, results = train("data=counts", "loss=poisson_nll", "noise=outliers", "noise.size=3", "logger=none", *SMALL[3:])
    assert results["test/mse"] > 0


def test_the_header_shows_how_many_labels_are_wrong(build, caplog):
    experiment = build(*BOTH)
    experiment.data.setup()
    with caplog.at_level(logging.INFO):
        report.log_header(experiment)
    assert "imbalance   long_tail, ratio 8, 556 of 1,257 examples kept, 128 to 16 a class" in caplog.text
    assert "noise       symmetric, rate 0.4, 222 of 556 labels wrong" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["data=digits", "loss=gce"], "linear-digits-gce-s0"),
        (["data=digits", "noise=symmetric", "loss=gce"], "linear-digits+symmetric-gce-s0"),
        (["data=digits", "imbalance=long_tail", "noise=none"], "linear-digits+long_tail-mse-s0"),
        (["noise=outliers", "imbalance=long_tail", "seed=3"], "linear-line+long_tail+outliers-mse-s3"),
        (["experiment=outliers"], "linear-linear_synthetic+outliers-mse-s0"),
    ],
)
def test_run_names_contain_the_corruption(overrides, name):
    assert compose(overrides, "unused")["name"] == name


def test_choices_and_hparams_contain_the_corruption():
    config = compose([*BOTH, "seed=4"], "unused")
    assert (config["choices"]["noise"], config["choices"]["imbalance"]) == ("symmetric", "long_tail")
    assert {"noise.seed", "imbalance.seed"} <= set(config["per_run"])
    table = hyperparameters(config)
    told = {key: value for key, value in table.items() if key.startswith(("noise", "imbalance"))}
    assert told == {"noise": "symmetric", "noise.rate": 0.4, "imbalance": "long_tail", "imbalance.ratio": 8}
    for clean in ((), ("noise=none", "imbalance=none")):
        config = compose([*SMALL, *clean], "unused")
        assert (config["choices"]["noise"], config["choices"]["imbalance"]) == (None, None)
        assert not [key for key in hyperparameters(config) if key.startswith(("noise", "imbalance"))]


def test_comparison_labels_contain_the_corruption(tmp_path):
    found = []
    for number, noise in enumerate((["noise=none"], ["noise=symmetric"], ["noise=symmetric", "noise.rate=0.2"])):
        config = compose([*SMALL, *noise], str(tmp_path / str(number)))
        found.append(result_settings(Run(RunFolder(tmp_path), config, metrics={}, written=0.0)))
    assert [" ".join(label) for label in group_names(found)] == [
        "noise=none", "noise=symmetric noise.rate=0.4", "noise=symmetric noise.rate=0.2",
    ]  # fmt: skip


def test_a_run_is_evaluated_on_other_data_without_its_corruption(noisy_run):
    run = noisy_run[0].folder.path
    other = reopen(EvaluationRequest(run, data=("split_seed=5",)))
    other.data.setup()
    assert torch.equal(other.data.splits["train"].target, other.data.splits["train"].truth)
    with pytest.raises(LabError, match="training data differ from the data of this run"):
        reopen(EvaluationRequest(run, split="train", data=("split_seed=5",))).data.setup()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=line", "noise=symmetric"], "use noise=outliers or heteroscedastic"),
        (["model=mlp", "data=digits", "noise=outliers"], "use noise=symmetric or pair_flip"),
        (["model=mlp", "data=digits", "noise=asymmetric"], "use noise=pair_flip"),
        (["model=mlp", "data=digits", "noise=human"], "use data=cifar10"),
        (["data=line", "imbalance=long_tail"], r"use ~imbalance \(or imbalance=none\)"),
        (["model=mlp", "data=digits", "noise=symmetric", "noise.rate=much"], "noise.rate must be a share"),
    ],
)
def test_an_unsuitable_corruption_is_refused_in_one_line(build, overrides, message):
    with pytest.raises(LabError, match=message) as error:
        build(*overrides)
    assert "\n" not in str(error.value)


def test_multilabel_flips_are_in_the_manifest_and_the_figure():
    spec = DataSpec(Task.MULTILABEL, Kind.BINARY, (1,), 2, ("wet", "cold"))
    truth = torch.tensor([[1.0, 0.0]] * 10 + [[0.0, 0.0]] * 10)
    split, said = manifest.apply(Examples.of(torch.zeros(20, 1), truth), [Symmetric(0.2)], spec)
    (record,) = said["faults"]
    assert record["flips"] == {
        "wet": {"0": {"0": 8, "1": 2}, "1": {"0": 2, "1": 8}},
        "cold": {"0": {"0": 16, "1": 4}, "1": {}},
    }
    assert (record["changed"], record["of"]) == (8, 40)
    assert len(figure.draw(said, split, "labels").axes) == 1


@pytest.mark.parametrize(
    ("overrides", "panels"),
    [
        (BOTH, 3),
        ((*SMALL, "imbalance=long_tail", "imbalance.ratio=8"), 1),
        (("data=linear_synthetic", "noise=outliers"), 1),
        (("data=linear_synthetic", "noise=heteroscedastic"), 2),
        (("model=mlp", "data=breast_cancer", "loss=bce", "noise=pair_flip"), 3),
    ],
)
def test_every_corruption_has_a_figure(build, overrides, panels):
    experiment = build(*overrides)
    split = train_split(experiment)
    drawn = figure.draw(experiment.data.manifest, split, "a run")
    assert len(drawn.axes) == panels  # a map has its colour bar
    assert all(axes.get_xlabel() or axes.get_ylabel() for axes in drawn.axes)
