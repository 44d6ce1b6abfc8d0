"""A sound server with devices that are only in memory: PulseAudio's null sinks, as ALSA devices.

What is played into the sink ``NAME`` can be recorded from it; for PortAudio it is the device
``NAME``, to play on, and the device ``NAME_heard``, a microphone in front of it.
"""

import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

PROGRAMS = ("pulseaudio", "pactl", "paplay", "parecord", "espeak-ng")
PATIENCE = 30.0


@contextmanager
def sound_server(*names):
    """Run one with these sinks; give the environment of programs that shall use it."""
    with tempfile.TemporaryDirectory(prefix="pulse") as short:  # a socket's path is short
        folder = Path(short)
        socket = folder / "native"
        script = folder / "server.pa"
        lines = [f"load-module module-native-protocol-unix socket={socket} auth-anonymous=1"]
        lines += [f"load-module module-null-sink sink_name={n} rate=48000" for n in names]
        script.write_text("\n".join([*lines, ""]))
        devices = folder / ".asoundrc"
        devices.write_text("".join(map(_devices, names)))
        environment = {
            **os.environ,
            "HOME": str(folder),
            "PULSE_SERVER": f"unix:{socket}",
            "PULSE_RUNTIME_PATH": str(folder / "runtime"),
            "XDG_RUNTIME_DIR": str(folder),
        }
        command = ["pulseaudio", "-n", "--file", script, "--daemonize=no", "--use-pid-file=no"]
        command += ["--exit-idle-time=-1", "--disable-shm", "--log-target=stderr"]
        with (
            (folder / "log").open("w") as log,
            subprocess.Popen(command, env=environment, stderr=log) as server,
        ):
            try:
                _wait_until_there(server, environment, names, folder / "log")
                yield SimpleNamespace(environment=environment, server=server, folder=folder)
            finally:
                server.terminate()


def _devices(name):
    heard = f"{name}.monitor"
    hint = "hint { show on; description e2ecall }"
    return "".join(
        f'pcm.{device} {{ type pulse; device "{source}"; {hint} }}\n'
        for device, source in ((name, name), (f"{name}_heard", heard))
    )


def _wait_until_there(server, environment, names, log):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        done = subprocess.run(
            ["pactl", "list", "short", "sinks"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if all(name in done.stdout for name in names):
            return
        time.sleep(0.05)
    pytest.fail(f"PulseAudio did not start: {log.read_text()}")
