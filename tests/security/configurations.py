"""Malicious configurations: each is the value of one key in the config.json of a run.

`{canary}` is a file that is created if the configuration is executed. Most of those in LIVE create it if Hydra
instantiates them unchecked; Hydra's block-list stops the others. Those in STILL do something else, or something that a
test cannot execute.
"""

from typing import Any


def node(target: Any, *args: Any, **options: Any) -> dict[str, Any]:
    return {"_target_": target} | ({"_args_": [*args]} if args else {}) | options


TOUCH = "touch {canary}"
PATH = node("pathlib.Path", "{canary}")
OPENED = node("builtins.open", "{canary}", "w")
CODE = "open('{canary}', 'w')"

LIVE: dict[str, Any] = {
    "os.mkdir": node("os.mkdir", "{canary}"),
    "os.system by an alias": node("losslab.cli.process.os.system", TOUCH),
    "os.system by a longer alias": node("torch.nn.modules.module.torch.hub.os.system", TOUCH),
    "os.system through functional": node("torch.nn.functional.torch.os.system", TOUCH),
    "sys.modules": node("torch.optim.lr_scheduler.warnings.sys.modules.get", "os"),
    "subprocess": node("subprocess.check_output", ["touch", "{canary}"]),
    "subprocess by an alias": node("losslab.data.cifar10.tempfile._os.popen", TOUCH),
    "builtins.open": OPENED,
    "io.open": node("io.open", "{canary}", "w"),
    "codecs.open": node("codecs.open", "{canary}", "w"),
    "pathlib touch": node("pathlib.Path.touch", PATH),
    "pathlib by an alias": node("losslab.training.weights.Path.touch", PATH),
    "shutil": node("shutil.copyfile", __file__, "{canary}"),
    "shutil by an alias": node("torchmetrics.utilities.imports.shutil.copyfile", __file__, "{canary}"),
    "losslab's own writer": node("losslab.io.atomic.write_bytes", PATH, node("builtins.bytes", 3)),
    "losslab's own JSON writer": node("losslab.io.atomic.write_json", PATH, 3),
    "losslab's private function": node("losslab.analysis.compare.report.Path.touch", PATH),
    "a partial that is called": node("functools.reduce", node("builtins.open", _partial_=True), ["{canary}", "w"]),
    "functools.partial": node("builtins.list", node("builtins.map", node("functools.partial", OPENED), [])),
    "nested in a loss": node("torch.nn.CrossEntropyLoss", weight=OPENED),
    "nested in a list": node("torch.nn.Sequential", node("torch.nn.Flatten"), OPENED),
    "nested in arguments by place": node("torch.nn.Linear", 3, OPENED),
    "nested below plain words": node("losslab.losses.weighted_sum.WeightedSum", terms={"a": {"b": [OPENED]}}),
    "a scheduler's function": node("torch.optim.lr_scheduler.LambdaLR", _partial_=True, lr_lambda=OPENED),
    "a callback's function": node("lightning.pytorch.callbacks.LambdaCallback", setup=OPENED),
    "numpy.savetxt": node("numpy.savetxt", "{canary}", [1]),
    "numpy.memmap": node("numpy.memmap", "{canary}", mode="w+", shape=[3]),
    "torch.save": node("torch.save", {"a": 1}, "{canary}"),
    "torch by an alias": node("losslab.training.teacher.torch.save", {"a": 1}, "{canary}"),
    "hydra in hydra": node("hydra.utils.instantiate", OPENED),
    "a method of hydra's": node("hydra.core.utils.Path.touch", PATH),
    "OmegaConf.save": node("omegaconf.OmegaConf.save", {"a": 1}, "{canary}"),
    "urllib": node("urllib.request.urlretrieve", "file://" + __file__, "{canary}"),
    "logging": node("logging.FileHandler", "{canary}"),
    "logging by configuration": node(
        "logging.config.dictConfig",
        {"version": 1, "handlers": {"a": {"class": "logging.FileHandler", "filename": "{canary}"}}},
    ),
    "sqlite": node("sqlite3.connect", "{canary}"),
    "a module of the folder": node("hostile_module.anything"),
    "an interpolated name": node("${.hidden}", "{canary}", "w", hidden="builtins.open"),
    "a resolver that makes": node("torch.nn.Sequential", "${oc.create:{_target_: os.mkdir, path: '{canary}'}}"),
    "a resolver that reads": node("torch.nn.Sequential", '${oc.decode:"{_target_: os.mkdir, path: {canary}}"}'),
    "an escaped interpolation": node("torch.nn.Sequential", "${oc.create:${.plain}}", plain=OPENED),
}  # fmt: skip

STILL: dict[str, Any] = {
    "os.system": node("os.system", TOUCH),
    "posix.system": node("posix.system", TOUCH),
    "builtins.eval": node("builtins.eval", CODE),
    "builtins.exec": node("builtins.exec", CODE),
    "builtins.__import__": node("builtins.__import__", "hostile_module"),
    "builtins.getattr": node("builtins.getattr", node("hydra.utils.get_object", "os"), "system"),
    "importlib": node("importlib.import_module", "hostile_module"),
    "runpy": node("runpy.run_path", __file__),
    "the end of the process": node("losslab.cli.process.os._exit", 3),
    "the end of the process by losslab": node("losslab.cli.process.exit_now", 3),
    "torch.hub.load": node("torch.hub.load", "nobody/nothing", "model"),
    "torch.hub.load by an alias": node("torch.nn.modules.module.torch.hub.load", "nobody/nothing", "model"),
    "torch.load": node("torch.load", "{canary}", weights_only=False),
    "torch.jit.load": node("torch.jit.load", "{canary}"),
    "torch.package": node("torch.package.PackageImporter", "{canary}"),
    "numpy.load": node("numpy.load", "{canary}", allow_pickle=True),
    "pickle by an alias": node("losslab.data.cifar10.pickle.loads", node("builtins.bytes", 3)),
    "shutil.rmtree by an alias": node("torchmetrics.utilities.imports.shutil.rmtree", "{canary}"),
    "a checkpoint of Lightning's": node("lightning.LightningModule.load_from_checkpoint", "{canary}"),
    "trust by losslab itself": node("losslab.runs.trust.also", ["os"]),
    "a writer by its old name": node("losslab.durable.put", PATH, node("builtins.bytes", 3)),
    "a JSON writer by its old name": node("losslab.runs.files.write_json", PATH, 3),
    "pathlib by an old alias": node("losslab.weights.Path.touch", PATH),
    "torch by an old alias": node("losslab.teacher.torch.save", {"a": 1}, "{canary}"),
    "pickle by an old alias": node("losslab.data.cifar_files.pickle.loads", node("builtins.bytes", 3)),
    "trust by its old name": node("losslab.trust.also", ["os"]),
    "an old name of a module by itself": node("losslab.callbacks.history.Path.touch", PATH),
    "trust of a teacher": node("losslab.training.teacher.trusting", ["os"]),
    "a method of a class that is allowed": node("torch.nn.Module.register_forward_hook", OPENED),
    "the globals of a class that is allowed": node("torch.nn.Module.__init__.__globals__.get", "os"),
    "a module that is allowed": node("torch.nn.functional"),
    "a name that was imported there": node("torch.nn.functional.handle_torch_function", OPENED),
    "a class of its package but of another kind": node("lightning.pytorch.callbacks.model_checkpoint.timedelta", 3),
    "a name in a list": node(["builtins.open"], "{canary}", "w"),
    "a name in a table": node({"_target_": "builtins.open"}, "{canary}", "w"),
    "a number": node(3),
    "nothing": node(None),
    "an empty name": node(""),
    "a name with a space": node(" builtins.open", "{canary}", "w"),
    "a name with a line": node("builtins.open\n", "{canary}", "w"),
    "a relative name": node("..builtins.open", "{canary}", "w"),
    "a name in other letters": node("torch.nn.Linеar", 3, 3),
    "a name with a zero": node("os.sys\0tem", TOUCH),
    "a name without a module": node("open", "{canary}", "w"),
    "what the environment holds": node("torch.nn.Flatten", "${oc.env:HOME}"),
    "what hydra knows": node("torch.nn.Flatten", "${hydra:runtime.cwd}"),
    "an interpolated interpolation": node("torch.nn.Flatten", "${${.a}}", a="oc.env:HOME"),
    "an interpolation for a key": {"_target_": "torch.nn.Flatten", "${oc.env:HOME}": 1},
    "an interpolation without end": node("torch.nn.Flatten", "${.a}", a="${.b}${.b}", b="${.a}"),
}  # fmt: skip


def deep() -> Any:
    found: Any = OPENED
    for _ in range(300):
        found = {"a": found}
    return found


ALL: dict[str, Any] = LIVE | STILL | {"deep below": deep()}


def filled(value: Any, canary: str) -> Any:
    """Return the configuration with the path of the canary."""
    if isinstance(value, dict):
        return {key: filled(each, canary) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, canary) for each in value]
    return value.replace("{canary}", canary) if isinstance(value, str) else value
