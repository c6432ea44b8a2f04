"""Classification of image files, prepared as in training and without the data set."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from losslab.analysis.evaluate import predict
from losslab.analysis.evaluate.evaluation import evaluate
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.training import experiment
from losslab.training.config import compose
from losslab.training.reopen import EvaluationRequest, reopen, reopen_network

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with images of three classes, and a run trained on them."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        for number, name in enumerate(("ant", "bee", "cow")):
            (folder / "data" / split / name).mkdir(parents=True)
            for each in range(count):
                pixels = random.integers(0, 120, (20, 26, 3), dtype=np.uint8)
                pixels[..., number] += 100
                Image.fromarray(pixels).save(folder / "data" / split / name / f"{each}.png")
    options = ["model=mlp", "data=image_folder", f"data.dir={folder / 'data'}", "data.size=8", "loss=balanced_softmax"]
    options += ["trainer=cpu", "trainer.max_epochs=3", "logger=none", "trainer.enable_progress_bar=false"]
    experiment.run(experiment.build(compose(options, str(folder / "run"))))
    return folder


def test_files_get_the_probabilities_of_the_evaluation(photos):
    predictions = evaluate(EvaluationRequest(photos / "run")).predictions
    (photos / "data").rename(photos / "gone")  # the data set is gone
    try:
        classifier = predict.load_classifier(photos / "run")
        paths, wrong = predict.find_files([photos / "gone" / "test"])
        classified = list(predict.classify(classifier, paths))
    finally:
        (photos / "gone").rename(photos / "data")
    assert not wrong
    assert classifier.spec.names == ["ant", "bee", "cow"]
    assert len(classified) == len(predictions) == 12
    assert np.abs(torch.stack([each for _, each in classified]).numpy() - predictions.probabilities).max() < 1e-6


def test_an_older_run_needs_its_data(photos):
    kept, aside = photos / "run" / "data.json", photos / "aside.json"
    learner, known = reopen_network(photos / "run", "best")
    kept.rename(aside)
    try:
        again, measured = reopen_network(photos / "run", "best")
        assert torch.equal(measured.normalise.mean, known.normalise.mean)
        assert torch.equal(measured.class_counts, known.class_counts)
        assert all(map(torch.equal, again.network.parameters(), learner.network.parameters()))
        (photos / "data").rename(photos / "gone")
        with pytest.raises(LabError, match=r"without data.json, so its data are needed: .*does not exist"):
            reopen_network(photos / "run", "best")
    finally:
        (photos / "gone").rename(photos / "data")
        aside.rename(kept)


@pytest.mark.parametrize("is_early", [False, True])
def test_transparent_images_get_the_background_of_the_training(photos, tmp_path, caplog, is_early):
    shutil.copytree(photos / "run", tmp_path / "run")
    if is_early:  # recorded before the option existed
        for name in ("config.json", "data.json"):
            content = json.loads((tmp_path / "run" / name).read_text())
            del content.get("data", content)["background"]
            (tmp_path / "run" / name).write_text(json.dumps(content))
    for name, colour in (("icon", (250, 0, 0, 0)), ("hidden", (250, 0, 0, 255)), ("shown", (255, 255, 255, 255))):
        Image.new("RGBA", (9, 9), colour).save(tmp_path / f"{name}.png")
    files = [tmp_path / f"{name}.png" for name in ("icon", "hidden", "shown")]
    results = [each for _, each in predict.classify(predict.load_classifier(tmp_path / "run"), files)]
    assert torch.equal(results[0], results[1 if is_early else 2])
    assert not torch.equal(results[0], results[2 if is_early else 1])
    said = [record.getMessage() for record in caplog.records]
    warning = "1 of 3 images have transparent parts; the network gets their hidden colours, as in training"
    assert said == [warning] * is_early
    request = EvaluationRequest(tmp_path / "run")
    assert reopen(request).data.background == (None if is_early else (255, 255, 255))
    assert reopen(dataclasses.replace(request, data=("background=[1,2,3]",))).data.background == (1, 2, 3)


def test_files_in_a_folder_that_are_no_images_are_counted(tmp_path, caplog):
    for name in ("some/a.jfif", "some/b.heic", "some/c", "none/d.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files, errors = predict.find_files([tmp_path / "some", tmp_path / "none"])
    assert files == [tmp_path / "some" / "a.jfif"]
    assert errors == [f"no images in {tmp_path / 'none'} (passed over: 1 .heic)"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'some'}: passed over 1 .heic, 1 without an ending"
    ]


def test_damaged_metadata_are_reported(photos):
    kept = photos / "run" / "data.json"
    whole = kept.read_text()
    try:
        for content in ("{}", "no json", whole.replace('"multiclass"', '"nonsense"'), whole.replace("255", "256")):
            kept.write_text(content)
            with pytest.raises(LabError, match=r"data\.json"):
                reopen_network(photos / "run", "best")
    finally:
        kept.write_text(whole)


def test_data_with_other_classes_are_rejected(photos, tmp_path):
    (tmp_path / "data").symlink_to(photos / "data")
    for split in ("train", "val", "test"):
        (tmp_path / "other" / split).mkdir(parents=True)
        for old, new in (("ant", "ant"), ("bee", "bee"), ("cow", "dog")):
            (tmp_path / "other" / split / new).symlink_to(photos / "data" / split / old)
    with pytest.raises(LabError, match="is cow in the run and dog in these data: name the classes as in training"):
        evaluate(EvaluationRequest(photos / "run", data=(f"dir={tmp_path / 'other'}",)))
    for split in ("train", "val", "test"):
        (tmp_path / "other" / split / "dog").unlink()
    with pytest.raises(
        LabError, match=r"the data are multiclass with 2 classes, but the run was trained on .* 3 classes"
    ):
        evaluate(EvaluationRequest(photos / "run", data=(f"dir={tmp_path / 'other'}",)))


def test_a_run_that_does_not_classify_images_is_rejected(runs):
    with pytest.raises(
        LabError,
        match="trained for regression on inputs of shape 10: losslab predict needs a run that classifies images",
    ):
        predict.load_classifier(runs("values"))
    with pytest.raises(LabError, match="that losslab predict cannot prepare"):
        predict.load_classifier(RunFolder(runs("noisy"), ("labelled",)))


def test_the_command_reports_unreadable_files_and_classifies_the_rest(photos, tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (9, 30), (200, 10, 10)).save(tmp_path / "in" / "red.jpg")
    (tmp_path / "in" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-P", "-m", "losslab.cli", "predict", str(photos / "run"), "in", "gone.png", "empty"]
    done = subprocess.run(
        [*command, "--csv", "out.csv", "--top", "9"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "no image at gone.png",
        "no images in empty",
        "cannot read the image in/broken.png (PIL decodes no such format): convert, repair or remove it",
    ]
    assert done.stdout.startswith("in/red.jpg")
    header, row = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith("image,class_1,probability_1,class_2")
    assert sum(map(float, row.split(",")[2::2])) == pytest.approx(1, abs=1e-5)
    again = subprocess.run([*command, "--csv", "out.csv"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr == "out.csv exists already: name another file, or remove it\n"
