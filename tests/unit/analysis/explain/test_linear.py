"""Explanation `linear`: minima, Hessians and figures agree with the mathematics."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linprog

from losslab.analysis.explain import linear
from losslab.analysis.explain.linear import figures
from losslab.analysis.explain.linear.figures import plane_through
from losslab.analysis.explain.linear.run import LinearRun
from losslab.analysis.explain.linear.training_loss import Minimum, find_minimum
from losslab.analysis.explain.solution import load_solutions
from losslab.errors import LabError
from losslab.io import atomic
from losslab.runs import RunFolder

FAST = ("logger=none", "test=false", "examine=false")
OUTLIERS = ("data=linear_synthetic", "noise=outliers", "noise.rate=0.1", "data.n=400", "data.features=10")


@pytest.fixture(autouse=True)
def _coarse_grid(monkeypatch):
    """Evaluate surfaces at fewer points, as no test looks at the contours."""
    monkeypatch.setattr(figures, "_GRID", 21)


@pytest.fixture(scope="module")
def runs(train):
    """Folders of short runs by their loss; data with outliers from ten features."""

    def _runs(*losses, options=()):
        return [train(f"loss={loss}", *FAST, *options)[0].folder for loss in losses]

    return _runs


@pytest.fixture(scope="module")
def line(runs):
    folders = [*runs("mse"), *runs("l1", "huber", options=("trainer.max_epochs=100",))]
    return [LinearRun.of(solution) for solution in load_solutions(folders, "last")]


@pytest.fixture(scope="module")
def with_outliers(runs):
    options = (*OUTLIERS, "trainer.max_epochs=60", "data.batch_size=null", "optimizer.lr=0.1")
    return [LinearRun.of(solution) for solution in load_solutions(runs("mse", "l1", "huber", options=options), "last")]


def test_the_hessian_of_the_three_points_has_the_known_eigenvalues(line):
    mse, l1, huber = line
    assert mse.curvature[0].tolist() == pytest.approx([11.0929, 0.2404], abs=5e-5)
    assert mse.max_stable_lr == pytest.approx(0.1803, abs=5e-5)
    assert huber.curvature[0].tolist() == pytest.approx([11.0929 / 2, 0.2404 / 2], abs=5e-5)
    assert not l1.is_curved


def test_the_recorded_path_equals_the_closed_form_of_gradient_descent(line):
    mse = line[0]
    values, vectors = mse.curvature
    start, solved = mse.trajectory.weights[0], np.array([2.0, 0.0])
    for step in (1, 10, 100, 1000):
        decayed = (1 - 0.01 * values) ** step
        expected = solved + vectors @ (decayed * (vectors.T @ (start - solved)))
        assert mse.trajectory.weights[step] == pytest.approx(expected, abs=1e-5)
    assert np.abs((mse.end - solved) @ vectors[:, 1] / ((start - solved) @ vectors[:, 1])) == pytest.approx(
        0.090, abs=5e-4
    )


def test_every_loss_has_its_minimum_at_the_true_weights_of_the_three_points(line):
    for run in line:
        assert run.minimum.reached
        assert run.minimum.weights == pytest.approx([2, 0], abs=1e-6)
        assert run.distance_to_truth(run.minimum.weights) == pytest.approx(0, abs=1e-6)


class Absolute:
    """The mean absolute error of a linear model, without a network."""

    def __init__(self, features, target):
        self.features, self.target = features, target

    def value(self, weights):
        return float(np.abs(self.features @ weights - self.target).mean())

    def gradient(self, weights):
        return np.sign(self.features @ weights - self.target) @ self.features / len(self.target)

    @property
    def programme(self):
        """Least absolute deviations, solved as the linear programme that it is (Charnes, Cooper, Ferguson 1955)."""
        count, size = self.features.shape
        both = np.block([[self.features, -np.eye(count)], [-self.features, -np.eye(count)]])
        return linprog(
            np.r_[np.zeros(size), np.ones(count) / count], A_ub=both, b_ub=np.r_[self.target, -self.target],
            bounds=[(None, None)] * size + [(0, None)] * count,
        )  # fmt: skip


@pytest.mark.parametrize("starts", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_the_minimum_of_absolute_errors_equals_that_of_the_linear_programme(with_outliers, starts):
    loss = with_outliers[1].loss
    features = np.c_[loss.inputs.numpy(), np.ones(len(loss.inputs))]
    solved = Absolute(features, loss.target.numpy().ravel()).programme
    points = np.random.default_rng(0).normal(size=(starts, 11))
    for minimum in (with_outliers[1].minimum, *(find_minimum(loss, [point]) for point in points)):
        assert minimum.reached
        assert minimum.loss == pytest.approx(solved.fun, abs=1e-9)
        assert minimum.weights == pytest.approx(solved.x[:11], abs=1e-6)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_a_minimum_at_an_edge_is_found_in_40_dimensions(seed, offset):
    random = np.random.default_rng(seed)
    features = random.normal(size=(600, 40))
    target = features @ random.normal(size=40) + random.standard_t(2, size=600) + offset * (random.random(600) < 0.2)
    absolute = Absolute(features, target)
    minimum = find_minimum(absolute, [np.zeros(40), np.full(40, 100.0)])
    assert minimum.reached
    assert minimum.loss == pytest.approx(absolute.programme.fun, rel=1e-9)


def test_an_unbounded_loss_has_no_minimum():
    class Falling:
        def value(self, weights):
            return float(np.abs(weights[0]) + weights[1])

        def gradient(self, weights):
            return np.array([np.sign(weights[0]), 1.0])

    assert not find_minimum(Falling(), [np.array([1.0, 0.0])]).reached


def separable(loss):
    """A linear classifier of two separable classes, without a network."""
    x, sign = np.array([[-2.0, 1], [-1, 1], [1, 1], [3, 1]]), np.array([-1.0, -1, 1, 1])

    class Margins:
        def value(self, weights):
            return float(loss(sign * (x @ weights))[0].mean())

        def gradient(self, weights):
            return (loss(sign * (x @ weights))[1] * sign) @ x / len(x)

    return Margins()


def logistic(margin):
    return np.logaddexp(0, -margin), -np.exp(-np.logaddexp(0, margin))


def squared_hinge(margin):
    return np.maximum(0, 1 - margin) ** 2, -2 * np.maximum(0, 1 - margin)


@pytest.mark.parametrize("start", [0.1, 3.0, 50.0, 1e4])
def test_on_separable_classes_only_the_squared_hinge_has_a_minimum(start):
    """From any starting point, also where the loss is rounded to 0 (1e4)."""
    at = [np.array([start, 0.0])]
    assert not find_minimum(separable(logistic), at).reached
    assert find_minimum(separable(squared_hinge), at).reached


def test_a_run_without_a_minimum_is_explained_without_a_hessian(train, caplog):
    options = ("data=breast_cancer", "loss=bce", "trainer.max_epochs=2")
    folder = train("model=linear", *options, *FAST)[0].folder
    run = LinearRun.of(load_solutions([folder], "last")[0])
    assert not run.minimum.reached
    with caplog.at_level("INFO"):
        (path,) = linear.explain([folder], None)
    assert caplog.messages == ["surface     bce: no minimum was found"]
    figure = figures.draw_surfaces([run])
    (legend,) = (axes.get_legend() for axes in figure.axes if axes.get_legend() is not None)
    assert "minimum of this loss" not in [text.get_text() for text in legend.get_texts()]
    assert np.ptp(legend.axes.get_xlim()) < 100, "what is drawn lies around the path"
    assert linear.explain([folder, folder], path.parent / "two")


def test_the_minimum_of_squared_errors_is_the_least_squares_solution(with_outliers):
    mse = with_outliers[0]
    features = np.c_[mse.loss.inputs.numpy(), np.ones(len(mse.loss.inputs))]
    solved = np.linalg.lstsq(features, mse.loss.target.numpy(), rcond=None)[0].ravel()
    assert mse.minimum.weights == pytest.approx(solved, abs=1e-6)
    clean = np.linalg.lstsq(features, mse.loss.truth.numpy(), rcond=None)[0].ravel()
    assert mse.loss.true_weights == pytest.approx(clean, abs=1e-9)


def test_a_loss_whose_outputs_are_not_the_values_has_a_minimum_but_no_true_weights(runs):
    (folder,) = runs("poisson_nll", options=("trainer.max_epochs=5", "optimizer.lr=0.001"))
    run = LinearRun.of(load_solutions([folder], "last")[0])
    assert run.loss.true_weights is None, "outputs are logarithms of the values"
    assert run.minimum.reached
    assert run.minimum.loss < run.loss.value(run.end)


def test_losses_at_many_points_equal_losses_at_each_point(line, with_outliers):
    random = np.random.default_rng(0)
    for run in (*line, *with_outliers):
        points = random.normal(size=(300, len(run.end)))
        alone = [run.loss.value(point) for point in points]
        assert run.loss.values(points) == pytest.approx(np.array(alone), rel=1e-12)


def test_outliers_move_the_minimum_of_the_squared_error_most(with_outliers, line):
    assert line[0].outlier_share == 0
    assert with_outliers[0].outlier_share == pytest.approx(0.1)
    moved = {run.solution.label: run.outlier_shift for run in with_outliers}
    assert moved["mse"] == pytest.approx(
        np.linalg.norm(with_outliers[0].minimum.weights - with_outliers[0].loss.true_weights), abs=1e-6
    )
    assert moved["mse"] > 5 * moved["huber"] > 5 * moved["l1"] > 0


def test_the_plane_contains_a_planar_path():
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(5, 2)))[0].T
    origin = random.normal(size=5)
    path = origin + random.normal(size=(30, 2)) @ axes
    plane = plane_through(origin, [path], np.eye(5))
    assert plane.weights(plane.project(path)) == pytest.approx(path, abs=1e-12)
    assert all("principal direction" in label for label in plane.labels)


def test_without_a_path_the_plane_is_spanned_by_the_extreme_eigenvectors():
    plane = plane_through(np.zeros(3), [], np.diag([2.0, 1.0, 5.0]))
    assert np.abs(plane.axes).tolist() == [[0, 0, 1], [0, 1, 0]]
    assert "steepest" in plane.labels[0]


def test_several_runs_share_the_axes_but_not_the_colour_scale(line):
    panels = [axes for axes in figures.draw_surfaces(line).axes if axes.get_xlabel() == "weight w"]
    assert len(panels) == 3
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
    bars = {bar.get_ylabel() for axes in panels for bar in axes.child_axes}
    assert bars == {f"{name} loss, mean of the examples" for name in ("mse", "l1", "huber")}
    for axes, run in zip(panels, line, strict=True):
        x, y = next(drawn for drawn in axes.get_lines() if drawn.get_label() == "path (numbers: epochs)").get_data()
        assert np.c_[x, y] == pytest.approx(run.trajectory.weights)


def test_figures_of_one_run_go_to_its_folder_and_of_several_to_the_output_folder(with_outliers, tmp_path, caplog):
    folders = [run.solution.folder for run in with_outliers]
    with caplog.at_level("INFO"):
        own = linear.explain(folders[:1], None)
    assert own == [folders[0].figures / "surface.png", folders[0].figures / "outliers.png"]
    assert [record.getMessage().split()[0] for record in caplog.records] == ["surface", "outliers"]
    beside = linear.explain(folders, tmp_path)
    for path in (*own, *beside):
        with Image.open(path) as image:
            assert image.size[0] > 800
    with pytest.raises(LabError, match="--output"):
        linear.explain(folders, None)


def test_runs_that_cannot_be_explained_are_rejected_in_one_line(runs, train):
    import torch

    (folder,) = runs("mse", options=("trainer.max_epochs=3",))
    folder.weight_trajectory.write_text("epoch,step,weight.0.0\n0,0,1\n")
    with pytest.raises(LabError, match="is not the path of this network"):
        linear.explain([folder], None)
    folder.weight_trajectory.unlink()
    assert linear.explain([folder], None), "a run without a path has a surface all the same"
    state = torch.load(folder.last, weights_only=True)
    state["state_dict"]["network.bias"][0] = torch.nan
    atomic.write_with_checksum(folder.last, lambda file: torch.save(state, file))
    with pytest.raises(LabError, match=r"last.ckpt contains NaN or infinite values \(network.bias\)"):
        linear.explain([folder], None)
    folder.last.unlink()
    with pytest.raises(LabError, match="no checkpoint at"):
        linear.explain([folder], None)
    (large,) = (train("data=digits", "loss=cross_entropy", "trainer.max_epochs=1", *FAST)[0].folder,)
    with pytest.raises(LabError, match="30,730 weights"):
        linear.explain([large], None)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda rows: rows[:3], "does not end at the weights of last.ckpt"),
        (lambda rows: rows[:1], "is not the path of this network"),
        (lambda rows: rows[:2], "does not end at"),
        (lambda rows: [rows[0], *rows[:0:-1]], r"is damaged \(its epochs or steps are not in order\)"),
        (lambda rows: [*rows[:2], "1,1,1e160,1", rows[-1]], "is not the path of this network"),
        (lambda rows: [*rows[:2], *rows[1:]], r"is damaged \(its epochs or steps are not in order\)"),
        (lambda _: ["\udcff\udcfe\0"], "is damaged"),
    ],
)
def test_a_path_of_another_run_is_rejected_in_one_line(line, tmp_path, damage, problem):
    folder = RunFolder(shutil.copytree(line[1].solution.folder.path, tmp_path / "run"))
    rows = folder.weight_trajectory.read_text().splitlines()
    folder.weight_trajectory.write_bytes("\n".join(damage(rows)).encode(errors="surrogateescape"))
    with pytest.raises(LabError, match=f"path.csv {problem}.*: delete it to draw the surface without the path$"):
        linear.explain([folder], None)


def test_the_path_of_an_interrupted_or_averaged_run_may_end_elsewhere(line, tmp_path):
    folder = RunFolder(shutil.copytree(line[1].solution.folder.path, tmp_path / "run"))
    rows = folder.weight_trajectory.read_text().splitlines()
    folder.weight_trajectory.write_text("\n".join(rows[:3]))
    content = folder.metrics.read_text()
    folder.metrics.unlink()
    assert linear.explain([folder], None)
    folder.metrics.write_text(content)
    config = folder.read_config()
    config["callbacks"]["ema"] = {"_target_": "lightning.pytorch.callbacks.EMAWeightAveraging"}
    folder.config.write_text(json.dumps(config))
    assert linear.explain([folder], None)


@pytest.mark.parametrize("end", [3.8, 3.79, 0.0, 0.01])
def test_similar_distances_are_drawn_on_a_linear_axis_from_0(end):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    run = SimpleNamespace(solution=SimpleNamespace(label="mse"), outlier_shift=3.8, end=np.array([end]))
    run.clean_minimum = Minimum(np.zeros(1), 0.0, reached=True)
    figures._draw_shifts(axes, [run])
    low, high = axes.get_xlim()
    assert axes.get_xscale() == ("log" if end == 0.01 else "linear")
    assert low == 0 or end == 0.01
    assert high > 3.8
