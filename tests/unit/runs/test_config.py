"""Keys that change no result, and the identity of configurations."""

import folders
import pytest
from omegaconf import OmegaConf

from losslab.io.conf_groups import source_folders
from losslab.runs import RunFolder
from losslab.runs.config import (
    RESULT_NEUTRAL_KEYS,
    changed_settings,
    changes_no_result,
    choice_names,
    exact_identity,
    hyperparameters,
    identity,
)
from losslab.training.config import compose

OWN_LOSS = "loss=custom loss._target_=mine.Own +loss.weight._target_=torch.tensor +loss.weight.data=[1.0]"


@pytest.mark.parametrize(
    "key", [*sorted(RESULT_NEUTRAL_KEYS), "callbacks.history.title", "callbacks.mine.run_dir", "logger.a.b"]
)
def test_neutral_keys_change_no_result(key):
    assert changes_no_result(key, {"data": "digits"})


@pytest.mark.parametrize("key", ["loss.gamma", "data.batch_size", "data", "seed", "trainer.max_epochs", "nameless"])
def test_other_keys_change_the_result(key):
    assert not changes_no_result(key, {"data": "digits"})


def test_data_dir_changes_the_result_of_image_folder():
    assert not changes_no_result("data.dir", {"data": "image_folder"})


def test_identity_ignores_the_folder_and_keys_that_may_change_on_resume():
    config, moved = folders.config(path="outputs/a"), folders.config(path="outputs/b")
    moved["data"]["workers"] = 3
    assert identity(config) == identity(moved)
    assert exact_identity(config) != exact_identity(moved)
    assert identity(config) != identity(folders.config(seed=1, path="outputs/a"))


@pytest.mark.parametrize(
    ("overrides", "group", "name"),
    [
        ("optimizer=adam optimizer._target_=torch.optim.SGD", "optimizer", "SGD"),
        ("optimizer=momentum optimizer.lr=1", "optimizer", "momentum"),
        ("scheduler=cosine scheduler.scheduler._target_=mine.Own", "scheduler", "Own"),
        ("+scheduler.scheduler._target_=mine.Own", "scheduler", "Own"),
        ("scheduler=cosine scheduler.scheduler=null", "scheduler", "constant"),
        ("model._target_=mine.Own", "model", "Own"),
        ("data._target_=mine.Own", "data", "Own"),
        ("loss=huber loss._target_=mine.Own", "loss", "Own"),
        (OWN_LOSS, "loss", "Own"),
        ("loss=smoothed", "loss", "smoothed"),
        ("loss=smoothed loss@loss.loss=focal", "loss", "Smoothed+Focal"),
        ("loss=nce_mae loss.terms.mae.loss._target_=mine.Own", "loss", "WeightedSum+NCE+Own"),
        ("loss=nce_mae ~loss.terms.mae", "loss", "WeightedSum+NCE"),
        ("noise=symmetric noise._target_=mine.Own", "noise", "Own"),
        ("+noise._target_=mine.Own", "noise", "Own"),
        ("noise=none", "noise", None),
        ("mix=cutmix", "mix", "cutmix"),
        ("mix=cutmix mix.transform._target_=torchvision.transforms.v2.MixUp", "mix", "Mix+MixUp"),
        ("trainer=cpu trainer._target_=mine.Own", "trainer", "Own"),
    ],
)
def test_a_group_is_named_by_what_is_made(overrides, group, name):
    config = compose(overrides.split(), "unused")
    assert config["choices"][group] == name
    assert hyperparameters(config).get(group) == name
    if group in ("model", "data", "loss", "noise") and name:
        assert name in config["name"].replace("+", "-").split("-") or name in config["name"]


def test_callbacks_that_change_the_results_are_hyperparameters():
    assert not [key for key in hyperparameters(compose(["callbacks=dynamics"], "unused")) if "callbacks" in key]
    table = hyperparameters(compose(["callbacks=ema", "callbacks.ema.decay=0.9"], "unused"))
    assert {key: table[key] for key in table if "callbacks" in key} == {
        "callbacks.ema": "EMAWeightAveraging", "callbacks.ema.decay": 0.9,
    }  # fmt: skip


def test_a_choice_of_the_users_files_is_named_by_the_class_that_replaces_its_own(tmp_path):
    folder = tmp_path / "optimizer"
    folder.mkdir()
    (folder / "ada.yaml").write_text("_target_: torch.optim.Adagrad\n_partial_: true\nlr: &alias 0.1\neps: *alias\n")
    chosen = [f"hydra.searchpath=[file://{tmp_path}]", "optimizer=ada"]
    assert compose(chosen, "unused")["choices"]["optimizer"] == "ada"
    replaced = compose([*chosen, "optimizer._target_=torch.optim.Adam"], "unused")
    assert replaced["choices"]["optimizer"] == "Adam"


def test_a_file_with_the_name_of_a_choice_of_losslab_is_not_passed_over_silently(tmp_path, caplog):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "huber.yaml").write_text("_target_: mine.Huber\n")
    config = compose([f"hydra.searchpath=[file://{tmp_path}]", "loss=huber"], "unused")
    assert config["choices"]["loss"] == "huber"
    assert config["loss"]["_target_"].startswith("losslab.")
    assert f"{tmp_path}/loss/huber.yaml is not read, rename it" in caplog.text


def test_config_sources_are_folders_and_packages():
    paths = (("pkg", "no.such.package"), ("file", "/a"), ("pkg", "losslab.io"), ("pkg", "hydra.conf"))
    found = source_folders(OmegaConf.create({"schema": schema, "path": path}) for schema, path in paths)
    assert [folder.name for folder in found] == ["a", "io"]


def test_choices_outside_of_the_folder_of_the_group_are_not_read():
    made = {"loss": {"_target_": "mine.Own"}}
    for choice in ("../optimizer/sgd", "/etc/x", ""):
        assert choice_names(made, {"loss": choice})["loss"] == choice


def test_a_run_of_an_early_version_is_named_by_what_was_made(tmp_path):
    run = folders.run(tmp_path / "run", "huber", loss___target_="torch.nn.MSELoss", mix___target_="mine.Mix")
    choices = RunFolder(run).read_unchecked_config()["choices"]
    assert (choices["loss"], choices["mix"], choices["model"]) == ("MSELoss", "Mix", "mlp")


def test_settings_that_differ_from_the_file_are_changed():
    config = compose(["model=mlp", "model.hidden=[8]", "optimizer=nesterov", "optimizer.nesterov=false"], "unused")
    assert changed_settings(config, "model") == {"hidden": [8]}
    assert changed_settings(config, "optimizer") == {"nesterov": False}
    assert changed_settings(config, "data") == {}


def test_hyperparameters_are_those_of_all_parts():
    overrides = ["model=mlp", "model.hidden=[8]", "mix=mixup", "scheduler=step", "loss=nce_mae", "data=digits"]
    overrides += ["data.size=8", "+data.workers=1", "trainer.gradient_clip_val=1"]
    config = compose(overrides, "unused")
    expected = {"model.hidden": "[8]", "mix": "mixup", "mix.alpha": 0.2, "scheduler.scheduler.step_size": 10}
    expected |= {"data.size": 8, "trainer.gradient_clip_val": 1}
    assert expected.items() <= hyperparameters(config).items()
    assert "data.workers" not in hyperparameters(config)
    assert hyperparameters(config)["loss.terms.nce.weight"] == 1.0
