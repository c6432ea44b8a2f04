"""Tables as CSV, as Markdown and for the terminal; PNG figures."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from losslab.io.figures import (
    encode_png,
    loss_colour,
    loss_styles,
    new_figure,
    rasterize,
    save_png,
    set_integer_ticks,
)
from losslab.io.tables import csv_text, markdown_table, terminal_table, write_csv
from losslab.losses import catalog

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


def test_the_colour_of_a_loss_does_not_depend_on_the_other_losses_of_a_figure_or_their_order():
    names = [*catalog.names(), *(f"my_loss_{number}" for number in range(20))]
    for some in (names, names[::-1], names[3::7]):
        styles = dict(zip(some, loss_styles(some), strict=True))
        assert all(style["color"] == loss_colour(name) for name, style in styles.items())
    assert loss_styles(["mse", "focal"]) == loss_styles(["focal", "mse"])[::-1]


def test_common_losses_have_different_colours():
    of_classes = ["cross_entropy", "mse", "focal", "label_smoothing", "gce", "mae", "bce", "brier", "hinge"]
    of_values = ["mse", "l1", "huber", "log_cosh", "charbonnier", "cauchy", "welsch", "tukey", "smooth_l1"]
    for names in (of_classes, of_values):
        assert len({*map(loss_colour, names)}) == len(names)


def test_all_losses_in_one_figure_have_different_lines():
    lines = [tuple(style.values()) for style in loss_styles(catalog.names())]
    assert len({*lines}) == len(lines) > 50


def test_unknown_losses_of_the_same_colour_have_different_line_styles():
    names = [f"my_loss_{number}" for number in range(40)]
    lines = [tuple(style.values()) for style in loss_styles(names)]
    assert len({*lines}) == 40
    assert len({colour for colour, _ in lines}) < 40


def test_settings_of_one_loss_are_shades_that_get_darker_with_a_number():
    labels = [f"focal, gamma {value}" for value in ("10", "2.5", "5e-1")]
    dark, middle, light = (style["color"] for style in loss_styles(["mse", *labels])[1:])
    brightness = [sum(bytes.fromhex(colour.removeprefix("#"))) for colour in (light, middle, dark)]
    assert brightness == sorted(brightness, reverse=True)
    assert middle == loss_colour("focal")
    assert loss_styles(["barron, alpha = -inf", "barron, alpha = -2", "barron, alpha = 0.5"]) == loss_styles(
        ["barron, alpha = 1", "barron, alpha = 2", "barron, alpha = 3"]
    )
    blacks = {style["color"] for style in loss_styles([f"bce, seed {seed}" for seed in range(4)])}
    assert len(blacks) == 4


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


@pytest.mark.parametrize(
    ("numbers", "marked"),
    [
        ([1], [1]),
        ([0, 1], [0, 1]),
        ([1, 2], [1, 2]),
        ([1, 2, 3], [1, 2, 3]),
        (range(1, 11), [2, 4, 6, 8, 10]),
        ([10, 20, 30], [10, 15, 20, 25, 30]),
        (range(1, 61), [0, 20, 40, 60]),
        (range(10, 1001, 10), [0, 200, 400, 600, 800, 1000]),
        ([999_999, 1_000_000], [999_999, 1_000_000]),
    ],
)
def test_integer_ticks_are_whole_numbers(numbers, marked):
    axes = new_figure(4, 3).subplots()
    axes.plot(numbers, numbers)
    set_integer_ticks(axes)
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == marked
