"""A preset's file: the question, cost and expectation of its first lines, and its sweep."""

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf" / "experiment"
_PART = re.compile(r"^# (Question|Command|Cost|Expected):\s+(.*(?:\n# {5,}.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Preset:
    """conf/experiment/NAME.yaml."""

    question: str
    command: str
    cost: str
    expected: str
    body: list[str]
    """All lines that are not comments."""
    sweep: dict[str, list[str]]
    """By key, the values that it tries; of the seed as many as there are."""

    @classmethod
    def read(cls, name: str) -> "Preset":
        """The preset of this name."""
        text = (CONF / f"{name}.yaml").read_text()
        parts = {key.lower(): re.sub(r"\s*\n#\s+", " ", words) for key, words in _PART.findall(text)}
        body = [bare for line in text.splitlines() if (bare := re.sub(r"\s*(^|\s)#.*", "", line).rstrip())]
        content: Any = OmegaConf.to_container(OmegaConf.create(text))
        params = content["hydra"]["sweeper"]["params"]
        return cls(**parts, body=body, sweep={key: _values(str(given)) for key, given in params.items()})

    def jobs(self, seeds: int) -> list[list[str]]:
        """The overrides of its jobs, for the first seeds."""
        keys = {key: values[:seeds] if key == "seed" else values for key, values in self.sweep.items()}
        pairs = [[f"{key}={value}" for value in values] for key, values in keys.items()]
        return [[f"experiment={self.name}", *job] for job in product(*pairs)]

    @property
    def name(self) -> str:
        """As the command says it."""
        return self.command.rpartition("=")[2]


def _values(given: str) -> list[str]:
    span = re.fullmatch(r"range\((\d+)\)", given)
    return [str(number) for number in range(int(span[1]))] if span else given.split(",")
