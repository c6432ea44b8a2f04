import os
import signal

import pytest

from losslab.training.distributed import signals


def test_exit_on_ctrl_c_restores_the_handler():
    before = signal.getsignal(signal.SIGINT)
    with signals.exit_on_ctrl_c():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_second_signal_exits_and_uninstall_restores_handlers(monkeypatch):
    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)
    before = signal.getsignal(signal.SIGTERM)
    handler = signals.SignalHandler()
    handler.install()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert handler.received == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
        assert not exits, "a copy of the first signal, forwarded by a parent, ended the process"
        monkeypatch.setattr(signals, "_REPEAT_SECONDS", 0.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert exits == [143]
    finally:
        handler.uninstall()
    assert signal.getsignal(signal.SIGTERM) == before
    assert handler.previous_handlers[signal.SIGTERM] == before


def test_signals_ignored_under_nohup_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handler = signals.SignalHandler()
    try:
        handler.install()
        os.kill(os.getpid(), signal.SIGHUP)
        assert handler.received is None
        handler.uninstall()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_install_forgets_an_earlier_signal():
    handler = signals.SignalHandler()
    handler.received = signal.SIGINT
    handler.install()
    handler.uninstall()
    assert handler.received is None


def test_signal_raises_at_once_if_it_is_not_deferred():
    handler = signals.SignalHandler()
    handler.install()
    handler.deferred = False
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        handler.uninstall()


def test_shared_request_of_one_process_keeps_the_maximum_until_it_is_cleared():
    request = signals.SharedRequest()
    assert request.submit(0) == 0
    assert request.submit(signals.SAVE + signal.SIGTERM) == 16
    assert request.submit(signals.SAVE) == 16
    assert request.submit_and_wait(0) == 16
    assert request.clear() == 16
    assert request.submit(0) == 0


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)


@pytest.mark.usefixtures("job")
def test_slurm_signals_are_handled_inside_a_job_only(monkeypatch):
    assert signals.slurm_signals() == (signal.SIGUSR1, signal.SIGUSR2)
    monkeypatch.delenv("SLURM_JOB_ID")
    assert signals.slurm_signals() == ()


@pytest.mark.usefixtures("job")
def test_requeue_calls_a_handler_that_was_installed_before():
    calls = []
    signals.requeue_slurm_job(signal.SIGUSR2, lambda number, _: calls.append(number))
    assert calls == [signal.SIGUSR2]


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize(("array", "name"), [({}, "77"), ({"ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "3"}, "70_3")])
def test_requeue_runs_scontrol(array, name, monkeypatch, tmp_path):
    for key, value in array.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    signals.requeue_slurm_job(signal.SIGUSR1, signal.SIG_DFL)
    assert (tmp_path / "arguments").read_text() == f"requeue {name}\n"


@pytest.mark.usefixtures("job")
def test_failed_requeue_is_logged_in_one_line(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "/nowhere")
    signals.requeue_slurm_job(signal.SIGUSR1, signal.SIG_DFL)
    assert caplog.messages == ["cannot requeue SLURM job 77 ([Errno 2] No such file or directory: 'scontrol')"]
