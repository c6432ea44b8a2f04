"""Tables as CSV, as Markdown and for the terminal; PNG figures."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from losslab.io.figures import COLOURS, encode_png, line_styles, new_figure, rasterize, save_png
from losslab.io.tables import csv_text, markdown_table, terminal_table, write_csv

ROWS = [("loss", "mean"), ("a|b", "0.5"), ("[red]", "1")]


def test_csv_is_read_back_and_has_no_control_characters(tmp_path):
    write_csv(tmp_path / "table.csv", ["name", "value"], [("a,b\x1b", 0.1), ("c", None)])
    text = (tmp_path / "table.csv").read_text()
    assert [*csv.reader(io.StringIO(text))] == [["name", "value"], ["a,b\\x1b", "0.1"], ["c", ""]]
    assert csv_text([[1.0, float("nan")]]) == "1.0,nan\n"


def test_csv_replaces_a_link(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "table.csv").symlink_to(tmp_path / "victim")
    write_csv(tmp_path / "table.csv", ["a"], [])
    assert (tmp_path / "victim").read_text() == "mine"


def test_markdown_aligns_numbers_right_and_escapes_bars():
    assert markdown_table(ROWS).splitlines() == [
        "| loss | mean |", "| :--- | ---: |", "| a\\|b | 0.5 |", "| [red] | 1 |"
    ]  # fmt: skip


def test_terminal_table_fits_the_width_or_is_replaced():
    text = terminal_table(ROWS, width=20)
    assert "[red]" in text  # is not interpreted as markup by rich
    assert max(map(len, text.splitlines())) <= 20
    wide = [("x" * 10, "y" * 10), ("1", "2" * 10)]
    assert terminal_table(wide, width=8, instead="too wide") == "too wide"
    assert terminal_table(wide, width=80, instead="too wide") != "too wide"


def test_49_lines_have_different_pairs_of_colour_and_style():
    styles = line_styles()
    pairs = [tuple(next(styles).values()) for _ in range(len(COLOURS) ** 2)]
    assert len(set(pairs)) == 49


@pytest.mark.parametrize("as_pixels", [False, True])
def test_equal_figures_are_equal_png_files(tmp_path, as_pixels):
    pictures = []
    for _ in range(2):
        figure = new_figure(2, 1, dpi=50)
        figure.subplots().plot([1, 2])
        pictures.append(rasterize(figure) if as_pixels else figure)
    save_png(pictures[0], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == encode_png(pictures[1])
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size == (100, 50)
        assert np.asarray(image).std() > 0
        assert "Software" not in image.info
