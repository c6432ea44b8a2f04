"""Overrides that Hydra refuses: quoted, or explained in one line."""

import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from losslab.cli.hydra_errors import quote_texts
from losslab.cli.process import message_for_user
from losslab.errors import LabError
from losslab.training.config import ProcessContext, compose

TYPED = (
    "a#b", "a=b", "epoch=9.ckpt", "/home/josé/x", "~/x", "日本", "it's", 'a "b" c', "a;b", "a&b", "(a)", "<a>", "a!",
    "1e3", "true", "007", "a:b", "a b", " a ", "50%", "a\\", "a\\b#", "a?b", "a@b", "a$b",
)  # fmt: skip


def explained(monkeypatch, *overrides):
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    with pytest.raises(Exception) as error:  # noqa: PT011 -- of any of Hydra's classes
        compose(quote_texts(overrides), "unused")
    message = message_for_user(error.value)
    assert message is not None
    assert "\n" not in message
    assert "hydra.cc" not in message
    return message


@pytest.mark.parametrize("typed", TYPED)
def test_names_and_paths_are_taken_as_typed(typed):
    parser = OverridesParser.create()
    for key in ("name", "run_dir", "ckpt_path", "+data.dir"):
        (override,) = quote_texts([f"{key}={typed}"])
        assert parser.parse_override(override).value() == typed


@pytest.mark.parametrize(
    "argument", ["name=null", "name=", "name=${data.seed}", "name='a#b'", 'run_dir="a b"', "name=a,b", "loss.gamma=1e3"]
)
def test_other_arguments_are_not_changed(argument):
    assert quote_texts([argument]) == [argument]


@pytest.mark.parametrize("value", ["a#b", "it's", 'a"b', "é", "a=b", "a\\#", "(a", "[a", "{a:", 'a"b#c'])
def test_the_proposed_quotes_give_the_typed_value(monkeypatch, value):
    message = explained(monkeypatch, f"+notes.text={value}")
    (argument,) = shlex.split(message.rpartition("with quotes it is text: type ")[2])
    assert argument.startswith("+notes.text=")
    assert OverridesParser.create().parse_override(argument).value() == value


def test_the_proposed_quotes_of_a_list_keep_it_a_list(monkeypatch):
    message = explained(monkeypatch, "tags=[a#b, c]")
    argument = shlex.split(message.rpartition("type ")[2])[0]
    assert OverridesParser.create().parse_override(argument).value() == ["a#b", "c"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("loss=hubber", "there is no loss=hubber: did you mean loss=huber?"),
        ("noise=symetric", "did you mean noise=symmetric?"),
        ("experiment=huber_beats_mes", "did you mean experiment=huber_beats_mse?"),
        ("loss=huber loss.dleta=2", "there is no loss.dleta: did you mean loss.delta=2?"),
        ("model=mlp model.hiden=[8]", "did you mean model.hidden=[8]?"),
        ("optimzer.lr=1", "did you mean optimizer.lr=1?"),
        ("trainer.max_epoch=3", "did you mean trainer.max_epochs=3?"),
        ("losss=huber", "did you mean loss=huber?"),
        ("lr=0.1", "did you mean optimizer.lr=0.1?"),
        ("epochs=3", "did you mean trainer.max_epochs=3?"),
        (
            "data.dir=x",
            "there is no data.dir (data has batch_size, eval_batch_size, seed): to pass another argument, type +",
        ),
        ("optimizer.foo=3", "type +optimizer.foo=3"),
        ("foo=3", "put your own keys under notes, as in +notes.foo=3"),
        ("+loss=huber", "loss is chosen already: type loss=huber, without +"),
        ("+optimizer.lr=1", "optimizer.lr exists already: set it without +"),
        ("~loss=huber", "loss=huber is not chosen"),
        ("~optimizer.momentm", "did you mean ~optimizer.momentum?"),
        ("~nothing", "nothing to leave out"),
        ("~data.batch_size", "type data.batch_size=0 ~data.batch_size"),
        ("scheduler=none", "Available options in 'scheduler': constant, cosine"),
        ("mix=none", "~mix leaves it out"),
        ("loss=mse,l1", "add -m to train with each of these values"),
        ("loss.gamma=range(1,3)", "add -m"),
        ("loss=[mse,l1]", "loss must be one choice"),
        ("optimizer.lr", "such as optimizer.lr=VALUE"),
        ("a b=3", "is not GROUP=CHOICE or KEY=VALUE"),
        ("=5", "has no key"),
    ],
)
def test_a_mistake_is_explained_in_one_line(monkeypatch, typed, message):
    arguments = [typed] if typed == "a b=3" else typed.split()
    if typed == "=5":
        with pytest.raises(LabError, match=message):
            quote_texts(arguments)
    else:
        assert message in explained(monkeypatch, *arguments)


def test_tilde_at_the_start_of_run_dir_is_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    context = ProcessContext()
    assert context.run_path("~/run", "name") == str(tmp_path / "home" / "run")
    assert context.sweep_path("~/sweep", "losslab.sweep.launcher.LosslabLauncher") == str(tmp_path / "home" / "sweep")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
