"""Configurations of jobs that are derived from that of another job are those that Hydra composes."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import Container, OmegaConf

from losslab import CONF
from losslab.sweep.composing import Composer, YamlWriter, parse_value
from losslab.training.config import register

FILES = {
    "app.yaml": """
        defaults: [_self_, {db: mysql}, {opt@b.opt: fast}]
        a: 1
        b: {c: 2.5, d: "${a}", e: null, f: text, g: true, l: [1, 2], m: {n: 3}}
        r: "${b.m}"
        hydra: {job: {name: app}}
        """,
    "db/mysql.yaml": "port: 1\nuser: {name: root}",
    "db/sqlite.yaml": "file: x",
    "opt/fast.yaml": "speed: 9",
    "opt/slow.yaml": "speed: 1",
}


class Sweep:
    """Composes jobs in both ways, and counts how many Hydra composes for the composer."""

    def __init__(self, loader, master):
        self.loader, self.master, self.count = loader, master, 0
        self.composer = Composer(self.load, self.master)

    def load(self, master, overrides):
        self.count += 1
        return self.loader.load_sweep_config(master, overrides)

    def check(self, *overrides):
        expected = self.loader.load_sweep_config(self.master, [*overrides])
        for _ in range(2):  # composed by Hydra or derived, and derived
            assert nodes(self.composer.compose(overrides)) == nodes(expected)
        template, parts = self.composer.template(overrides)
        task, hydra = template.plain(parts)
        plain = OmegaConf.to_container(expected, resolve=False, enum_to_str=True)
        assert hydra == plain.pop("hydra")
        assert task == plain
        without = OmegaConf.masked_copy(expected, [*plain])
        assert nodes(template.task_config(parts))[1:] == nodes(without)[1:]


def nodes(node, path=""):
    """Everything that OmegaConf knows of each node of a configuration."""
    data = {key: value for key, value in vars(node._metadata).items() if key != "resolver_cache"}
    content = getattr(node, "_content", None)
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    value = None if isinstance(node, Container) and children else repr(node._value())
    found = [(path, type(node), data, value)]
    for key, child in children:
        found += nodes(child, f"{path}.{key}")
    return found


def opened(folder, name):
    """The config loader of the files in a folder, and the configuration of a sweep."""
    setup_globals()
    with initialize_config_dir(str(folder), version_base="1.3"):
        loader = GlobalHydra.instance().hydra.config_loader
        overrides = ["hydra.job.name=other", "hydra.verbose=false"]
        return loader, loader.load_configuration(name, overrides, run_mode=RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(line.removeprefix("        ") for line in content.splitlines()))
    return opened(folder, "app")


@pytest.fixture
def app(files):
    return Sweep(*files)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (
            "a",
            ["0", "-7", "+3", "1_000", "1e-3", "inf", "true", "no", "null", "'a, b'", '"7"', ""],
        ),
        ("b.c", ["1", "2.5", "10", "str(1)", "float(1)", "a\\=b", "/a/b", "a.b", "x@y", "$USER", "%"]),
        ("b.d", ["3", "true", "text", "0"]),  # instead of an interpolation
        ("b.e", ["4", "null", "0.0"]),
        ("b.m.n", ["4", "5"]),
    ],
)
def test_values_are_set_as_hydra_sets_them(app, key, values):
    for value in values:
        app.check("db=mysql", f"{key}={value}", "b.f=x")
    assert app.count < len(values) or len(values) == 1


def test_jobs_with_the_same_choices_are_composed_once(app):
    for db in ("mysql", "sqlite"):
        for a in (1, 2, 3):
            app.check(f"db={db}", f"a={a}", "+b.new=1", "b.opt.speed=3", "~b.g", "b.l=[3]")
    assert app.count == 2


@pytest.mark.parametrize(
    "values",
    [
        ["b.l=[3,4]", "b.l=[5]"],
        ["b.m={n:4}", "b.m={n:5}"],
        ["b.f=${a}", "b.f=${b.c}"],
        ["b.f=\\${a}", "b.f=\\${b}"],
        ["+x=1", "+x=2"],
        ["++x=1", "++a=2"],
        ["~b.c", "~b.f"],
        ["db=mysql", "db=sqlite"],
        ["opt@b.opt=slow", "opt@b.opt=fast"],
        ["b.f='${a}'", "b.f='${b.c}'"],
        ["r=1", "r=2"],
    ],
)
def test_other_overrides_are_composed_by_hydra(app, values):
    for value in values:
        app.check(value, "b.e=2")


def test_a_value_that_another_override_changes_is_composed_by_hydra(app):
    for value in (1, 2, 3):
        app.check(f"b.c={value}", "b={c:5}")
        app.check(f"a={value}", "a=2")
    assert app.count >= 3


@pytest.mark.parametrize("override", ["b.typo=1", "typo=1", "a.b=1", "db=typo", "a={", "b.l=1,2", "b.m.n.o=3"])
def test_a_wrong_override_raises_the_error_of_hydra(app, override):
    app.check("a=1", "b.c=1")
    for _ in range(2):
        with pytest.raises(CompactHydraException) as expected:
            app.loader.load_sweep_config(app.master, ["a=1", override])
        with pytest.raises(CompactHydraException) as raised:
            app.composer.compose(["a=1", override])
        assert str(raised.value) == str(expected.value)


def test_a_derived_configuration_has_the_cache_of_the_sweep(app):
    OmegaConf.register_new_resolver("once", lambda: 7, use_cache=True, replace=True)
    for value in (1, 2):
        OmegaConf.get_cache(app.master)["once"][()] = 5 + value
        assert OmegaConf.get_cache(app.composer.compose([f"a={value}"]))["once"] == {(): 5 + value}


def test_the_configurations_of_losslab_are_derived():
    register()
    sweep = Sweep(*opened(CONF, "train"))
    for seed, lr, name in ((0, "0.1", "a"), (-1, "1e-3", "'b c'")):
        sweep.check(
            "experiment=huber_beats_mse", "loss=l1", f"seed={seed}", f"optimizer.lr={lr}", f"name={name}",
            "data.seed=3", "noise.rate=0.2", "~callbacks.path", "trainer=cpu", "compile=false", "+notes.x=1",
        )  # fmt: skip
    assert sweep.count == 1


@pytest.mark.parametrize(
    "text", ["seed=12", "seed=0", "seed=-3", "seed=007", "a.b=1.50", "a=1e3", "a=True", "a=null", "a='x y'"]
)
def test_a_value_is_parsed_as_by_hydra(text):
    parsed, (key, _, _) = parse_value(text), text.partition("=")
    expected = OverridesParser.create().parse_override(text).value()
    assert (parsed.key, parsed.text) == (key, text)
    assert (type(parsed.value), parsed.value) == (type(expected), expected)


@pytest.mark.parametrize(
    "text",
    ["a=[1]", "a={b:1}", "a=${b}", "a=???", "+a=1", "++a=1", "~a", "a@b=c", "a/b=c", "a=1,2", "a=range(3)", "a=glob(*)",
     "hydra.verbose=true", "a=", "a.0=1", "a", "a=[", "a=extend_list(1)"],
)  # fmt: skip
def test_overrides_that_are_no_single_value_are_recognised(text):
    parsed = parse_value(text)
    assert parsed is None or (text == "a=" and parsed.value == "")


TRICKY = {
    "a": 1, "b": {"c": [1, 2.5, None, True], "d": {}, "e": []}, "text": "a: b #c", "long": "word " * 40,
    "number": "1e3", "yes": "yes", "lines": "a\nb", "unicode": "é ☃", "empty": "", "interpolation": "${a}",
    "nested": [{"x": [{"y": 1}]}], "quote": "it's", "null": "null", "float": 1e-3, "infinity": float("inf"),
}  # fmt: skip


def test_yaml_is_formatted_as_by_omegaconf():
    writer = YamlWriter()
    for number in range(3):
        for content in (
            TRICKY | {"a": number},
            {"hydra": {"x": TRICKY, "y": number}},
            {"hydra": number},
            {"hydra": {}},
        ):
            assert writer.format(content) == OmegaConf.to_yaml(OmegaConf.create(content))
    assert writer.format(["a=1", "b='c d'"]) == OmegaConf.to_yaml(OmegaConf.create(["a=1", "b='c d'"]))
    assert writer.format([]) == OmegaConf.to_yaml(OmegaConf.create([]))
