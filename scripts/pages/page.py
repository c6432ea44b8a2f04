"""A documentation page: its experiments, its text as a function of their recorded results, and its figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pages.experiments import Experiment, Records, Result, find_stale, read_records, read_results


@dataclass(frozen=True)
class Page:
    """docs/NAME.md, with the results of its experiments in docs/NAME."""

    name: str
    experiments: Sequence[Experiment]
    text: Callable[[list[Result], Records, Path], str]
    """From results, records and the folder docs, the content of the page."""
    write_figures: Callable[[list[Result], Records, Path], None]
    """Write the figures of the same."""

    def write(self, docs: Path) -> None:
        """Write the figures, then the page."""
        content = self._content(docs)
        self.write_figures(*content)
        (docs / f"{self.name}.md").write_text(self.text(*content))

    def stale(self, docs: Path) -> list[str]:
        """Names of experiments that must run again, and of the page if its text is not that of the results."""
        current = (docs / f"{self.name}.md").read_text() == self.text(*self._content(docs))
        experiments = find_stale(self.experiments, read_records(docs / self.name))
        return experiments if current else [*experiments, f"{self.name}.md"]

    def _content(self, docs: Path) -> tuple[list[Result], Records, Path]:
        folder = docs / self.name
        return read_results(folder), read_records(folder), docs
