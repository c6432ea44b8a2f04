"""A documentation page: its experiments, and the functions that make its text and figures from their results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pages.experiments import Experiment, Records, Result, find_stale, read_records, read_results


@dataclass(frozen=True)
class Page:
    """The page docs/NAME.md; the results of its experiments are in the folder docs/NAME."""

    name: str
    experiments: Sequence[Experiment]
    text: Callable[[list[Result], Records, Path], str]
    """Function (results, records, docs folder) → content of the page."""
    write_figures: Callable[[list[Result], Records, Path], None]
    """Function (results, records, docs folder) that writes the figures."""

    def write(self, docs: Path) -> None:
        """Write the figures, then the page."""
        content = self._content(docs)
        self.write_figures(*content)
        (docs / f"{self.name}.md").write_text(self.text(*content))

    def stale(self, docs: Path) -> list[str]:
        """List the experiments that must run again, and the page if its text does not match the recorded results."""
        current = (docs / f"{self.name}.md").read_text() == self.text(*self._content(docs))
        experiments = find_stale(self.experiments, read_records(docs / self.name))
        return experiments if current else [*experiments, f"{self.name}.md"]

    def _content(self, docs: Path) -> tuple[list[Result], Records, Path]:
        folder = docs / self.name
        return read_results(folder), read_records(folder), docs
