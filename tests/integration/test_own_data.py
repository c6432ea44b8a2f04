"""The code of the README about data of your own, run as it is in a folder outside losslab."""

import re
from pathlib import Path

import pytest
from processes import python

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "README.md").read_text().partition("### Your own data\n")[2].partition("\n## ")[0]
MODULE = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL).group(1)
YAML = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL).group(1)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_data.py").write_text(MODULE)
    (folder / "conf" / "data").mkdir(parents=True)
    (folder / "conf" / "data" / "houses.yaml").write_text(YAML)
    rows = [f"{40 + 7 * n % 90},{n % 6},1,{100 + 14 * n % 180 + 5 * (n % 6)}" for n in range(60)]
    (folder / "houses.csv").write_text("\n".join(["area,rooms,heated,price", *rows]))
    return folder


def run(folder, *command):
    return python(*command, cwd=folder)


def test_the_data_of_the_readme_train_and_are_evaluated(folder):
    assert "    python train.py 'hydra.searchpath=[file://conf]' model=mlp data=houses" in SECTION
    options = ["hydra.searchpath=[file://conf]", "model=mlp", "data=houses", "trainer.max_epochs=2", "logger=none"]
    trained = run(folder, str(ROOT / "train.py"), *options, "run_dir=out")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "batches of 16" in trained.stdout
    assert "1 of 3 input columns never vary in train (column 2)" in trained.stdout + trained.stderr
    evaluated = run(folder, "-P", "-m", "losslab.cli", "evaluate", "out", "--trust", "my_data")
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr


def test_the_batch_size_of_the_class_is_used_where_the_yaml_has_none(folder):
    options = ["hydra.searchpath=[file://conf]", "model=mlp", "data=houses", "~data.batch_size", "trainer.max_epochs=1"]
    trained = run(folder, str(ROOT / "train.py"), *options, "logger=none", "run_dir=default")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "batches of 32" in trained.stdout
