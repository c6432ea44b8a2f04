"""Interpolations are resolved as OmegaConf resolves them."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losslab.training.interpolations import resolve_all, select

CONFIG = {
    "seed": 3,
    "name": None,
    "data": {"seed": "${seed}", "size": [1, "${seed}", {"deep": "${name}"}], "again": "${data.seed}"},
    "copy": "${data}",
    "part": "${data.size}",
    "text": "a ${seed} b ${data.seed}",
    "escaped": "\\${seed}",
    "to_escaped": "${escaped}",
    "relative": {"a": 1, "b": "${.a}", "c": "${..seed}"},
    "list_item": "${data.size.1}",
    "bracket": "${data[seed]}",
    "nested": "${data.${key}}",
    "key": "seed",
    "through": "${copy.size}",
    "call": "${oc.select:nothing,${seed}}",
    "environment": "${oc.env:LOSSLAB_TEST,none}",
    "strange keys": {"a.b": "${seed}", 1: "${name}"},
    "numbers": {"float": 1.5, "flag": True, "empty": {}, "list": []},
}


@pytest.fixture
def cfg():
    return OmegaConf.create(CONFIG)


def test_all_interpolations_are_resolved_as_by_omegaconf(cfg):
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert plain == CONFIG
    assert resolve_all(cfg, plain) == OmegaConf.to_container(cfg, resolve=True)
    assert plain == CONFIG


@pytest.mark.parametrize("value", ["${nothing}", "${data.nothing}", "${name.a}", "${seed.a}", "${wrong}", "${no:1}"])
def test_an_error_is_that_of_omegaconf(cfg, value):
    cfg.wrong = value
    with pytest.raises(OmegaConfBaseException) as expected:
        OmegaConf.to_container(cfg, resolve=True)
    with pytest.raises(OmegaConfBaseException) as raised:
        resolve_all(cfg, OmegaConf.to_container(cfg, resolve=False))
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    "key",
    ["seed", "name", "data.seed", "data.again", "copy.seed", "through", "nothing", "seed.a", "data.nothing.a", "text"],
)
def test_a_value_is_selected_as_by_omegaconf(cfg, key):
    assert select(cfg, OmegaConf.to_container(cfg, resolve=False), key) == OmegaConf.select(cfg, key)
