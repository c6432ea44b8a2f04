"""Interpolations are resolved as OmegaConf resolves them."""

from math import gcd

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
    "divisor": {
        "plain": "${divisor:10,15}",
        "of": "${divisor:10,${divisor.fifteen}}",
        "fifteen": 15,
        "spaces": "${divisor: 4, ${.fifteen}}",
        "zero": "${divisor:${divisor.fifteen},0}",
    },
    "strange keys": {"a.b": "${seed}", 1: "${name}"},
    "numbers": {"float": 1.5, "flag": True, "empty": {}, "list": []},
}


@pytest.fixture
def cfg():
    OmegaConf.register_new_resolver("divisor", gcd, replace=True)
    return OmegaConf.create(CONFIG)


def test_all_interpolations_are_resolved_as_by_omegaconf(cfg):
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert plain == CONFIG
    assert resolve_all(plain, lambda: cfg, {"divisor": gcd}) == OmegaConf.to_container(cfg, resolve=True)
    assert plain == CONFIG


def test_omegaconf_is_not_needed_for_references_and_functions():
    config = {"a": 6, "b": ["${a}", {"c": "${d.e}"}], "d": {"e": "${a}", "f": "${divisor:4,${a}}"}}
    assert resolve_all(config, lambda: pytest.fail("it was loaded"), {"divisor": gcd}) == {
        "a": 6, "b": [6, {"c": 6}], "d": {"e": 6, "f": 2}
    }  # fmt: skip


@pytest.mark.parametrize("value", ["${nothing}", "${data.nothing}", "${name.a}", "${seed.a}", "${wrong}", "${no:1}"])
def test_an_error_is_that_of_omegaconf(cfg, value):
    cfg.wrong = value
    with pytest.raises(OmegaConfBaseException) as expected:
        OmegaConf.to_container(cfg, resolve=True)
    with pytest.raises(OmegaConfBaseException) as raised:
        resolve_all(OmegaConf.to_container(cfg, resolve=False), lambda: cfg, {"divisor": gcd})
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    "key",
    ["seed", "name", "data.seed", "data.again", "copy.seed", "through", "nothing", "seed.a", "data.nothing.a", "text"],
)
def test_a_value_is_selected_as_by_omegaconf(cfg, key):
    assert select(cfg, OmegaConf.to_container(cfg, resolve=False), key) == OmegaConf.select(cfg, key)
