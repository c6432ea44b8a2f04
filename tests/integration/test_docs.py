"""The documentation pages show the recorded results, and the targets of their links exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def table(text: str, head: str) -> list[str]:
    """Return the lines of the Markdown table that starts with `head`."""
    lines = text[text.index(head) :].splitlines()
    return lines[: next(at for at, line in enumerate(lines) if not line.startswith("|"))]


def test_the_readme_shows_the_sentence_and_the_table_of_the_study():
    readme = (ROOT / "README.md").read_text()
    answer = (ROOT / "docs/cifar10_losses/answer.md").read_text()
    head = "|  | lr | test accuracy, % | n |"
    assert len(table(answer, head)) >= 2 + 7
    assert table(readme, head) == table(answer, head)
    sentence = answer.partition("\n")[0].removeprefix("# ")
    assert sentence in " ".join(readme.replace("\n> ", " ").split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_link_targets_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / path).exists() if path else anchor, target


@pytest.mark.slow
@pytest.mark.parametrize("package", ["soak", "golden"])
def test_commands_that_the_pages_name_start_outside_of_pytest(package):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    command = [sys.executable, "-m", package, "--help"]
    started = subprocess.run(command, cwd=ROOT / "tests", env=environment, capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    assert started.stdout.startswith("usage:")
