"""What docs/architecture.md says of the packages: their files exist, and what must start fast imports no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FAST = (
    "losslab.cli.main", "losslab.io", "losslab.runs", "losslab.sweep", "losslab.analysis.compare",
    "losslab.training.config", "losslab.training.distributed",
)  # fmt: skip
NEEDS_TORCH = {
    "losslab.io.torch_files",
    "losslab.runs.resume_checkpoint",
    "losslab.training.distributed.forkserver_preload",
}


def modules(name: str) -> list[str]:
    path = SRC / Path(*name.split("."))
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    names = [".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [each for each in names if each not in NEEDS_TORCH]


@pytest.mark.parametrize("package", FAST)
def test_packages_that_must_start_fast_import_no_torch(package):
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'torchvision', 'torchmetrics', 'lightning'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules(package)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["train.py", "--help"], ["losslab", "--help"]])
def test_help_imports_no_library(arguments):
    function = "train" if arguments[0] == "train.py" else "main"
    code = (
        f"import sys\nsys.argv = {arguments}\nfrom losslab.cli.main import {function}\n{function}()\n"
        "assert not {'rich', 'hydra', 'numpy', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_training_starts_without_scipy_signal_which_can_be_imported_later():
    code = (
        "import sys\nfrom losslab.cli.process import fast_imports\n"
        "with fast_imports():\n    import losslab.training.experiment\n"
        "assert 'torchmetrics' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('scipy.signal')]\n"
        "import scipy.signal\nassert scipy.signal.windows.hann(3).sum() == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_every_file_that_the_architecture_page_names_exists():
    names = set(re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.py|(?:[\w.-]+/)+)`", PAGE))
    names -= {"cli/VERB.py"}
    assert len(names) > 30
    places = (ROOT, SRC, SRC / "losslab", ROOT / "tests")
    missing = [name for name in sorted(names) if not any((place / name).exists() for place in places)]
    assert missing == []


def test_the_root_of_the_package_has_thirteen_entries():
    found = {
        path.name for path in (SRC / "losslab").iterdir() if path.name not in {"__init__.py", "py.typed", "__pycache__"}
    }
    assert found == {
        "errors.py", "targets.py", "io", "losses", "data", "models", "doctor", "runs", "training", "sweep", "analysis",
        "study", "cli",
    }  # fmt: skip
