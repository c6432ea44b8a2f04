"""TensorBoard's own reader finds the curves, hyperparameters, graph and figures of a run in its event file."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2


def events(experiment) -> EventAccumulator:
    accumulator = EventAccumulator(str(experiment.folder.path), size_guidance={"scalars": 0, "tensors": 0})
    return accumulator.Reload()


@pytest.fixture(scope="module")
def run(train):
    return train("model=cifar_cnn", "data=digits", "trainer.max_epochs=2", "trainer.log_every_n_steps=10")


def test_run_writes_one_event_file(run):
    experiment, _ = run
    assert len(list(experiment.folder.path.glob("events.out.tfevents.*"))) == 1


def test_curves_lr_and_gradient_norms_are_logged(run):
    experiment, results = run
    read = events(experiment)
    tags = set(read.Tags()["scalars"])
    assert (
        set(experiment.learner.epoch_metric_names)
        | {"lr", "grad_norm/total", "weights/grad_norm/0", "weights/grad_norm/8"}
        <= tags
    )
    best = max(event.value for event in read.Scalars("val/accuracy"))
    assert best == pytest.approx(results["val/accuracy"], abs=1e-5)
    steps = [event.step for event in read.Scalars("grad_norm/total")]
    assert steps == list(range(0, experiment.trainer.global_step, 10))


def test_training_and_validation_share_a_chart(run):
    experiment, _ = run
    read = events(experiment)
    layout = layout_pb2.Layout.FromString(read.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["loss"] == ["train/loss$", "val/loss$"]
    assert charts["accuracy"] == ["train/accuracy$", "val/accuracy$"]


def test_hparams_page_has_settings_and_no_experiment_summary(run):
    experiment, _ = run
    read = events(experiment)
    content = {tag: read.SummaryMetadata(tag).plugin_data.content for tag in read.PluginTagToContent("hparams")}
    parsed = {tag: plugin_data_pb2.HParamsPluginData.FromString(data) for tag, data in content.items()}
    starts = [data.session_start_info for data in parsed.values() if data.HasField("session_start_info")]
    assert starts[0].hparams["loss"].string_value == "cross_entropy"
    assert starts[0].hparams["optimizer.lr"].number_value == pytest.approx(0.02)
    assert any(data.HasField("session_end_info") for data in parsed.values())
    assert not any(data.HasField("experiment") for data in parsed.values())


def test_graph_and_figures_are_logged(run):
    read = events(run[0])
    assert read.Tags()["graph"]
    assert set(read.Tags()["images"]) == {"figures/loss_curve", "figures/accuracy_curve"}


def test_network_that_cannot_be_traced_has_no_graph(build, caplog, monkeypatch):
    experiment = build("trainer.max_epochs=2")
    monkeypatch.setattr("torch.jit.trace", lambda *_, **__: 1 / 0)
    experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert "graph page of TensorBoard stays empty" in caplog.text
    assert experiment.trainer.global_step == 2
