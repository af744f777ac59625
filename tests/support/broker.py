"""A real Mosquitto for tests: started on a free port, stopped, killed and started again at will."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_DEADLINE_S = 10.0


def find_mosquitto() -> str | None:
    """The path of the `mosquitto` program, or None. Debian has it in /usr/sbin, often not on a user's PATH."""
    return shutil.which(
        "mosquitto",
        path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]),
    )


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = _DEADLINE_S) -> None:
    """Return once `condition()` is true; AssertionError naming `what` if that takes over `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)


def port_answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts TCP connections at `host:port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


class MosquittoBroker:
    """A Mosquitto process with its own folder, port and config.

    with MosquittoBroker() as broker:                                   # anonymous, persistent, on 127.0.0.1
        use(broker.url) broker.kill(); broker.start()                                   # kill -9 and again,
        same port and folder
    with MosquittoBroker("max_inflight_messages 20") as broker: ...      # more lines of mosquitto.conf
    with MosquittoBroker(listener=["cafile ...", "certfile ..."]) as broker: ...     # TLS

    `options` are lines of mosquitto.conf put after the standard ones; `standard=False` leaves out anonymous
    access, so that password and ACL files can be set. `listener` are lines that belong to the listener, such
    as those for TLS. State is written every second and at `stop()`; a `kill()` loses what Mosquitto had not
    yet saved.
    """

    def __init__(
        self,
        options: str = "",
        *,
        listener: list[str] | None = None,
        standard: bool = True,
        persistence: bool = True,
        port: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port if port is not None else free_port()
        self.options = options
        self.listener = listener or []
        self._standard = standard
        self._persistence = persistence
        self._own_folder = folder is None
        self.folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="mosquitto-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:PORT`, or mqtts:// when the listener has a certificate."""
        tls = any(line.startswith("certfile") for line in self.listener)
        return f"{'mqtts' if tls else 'mqtt'}://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """Where Mosquitto writes its log (all types)."""
        return self.folder / "mosquitto.log"

    def log(self) -> str:
        """What Mosquitto has logged so far, over all its runs."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_for_log(self, text: str, timeout_s: float = _DEADLINE_S) -> None:
        """Return once `text` stands in the log."""
        wait_until(lambda: text in self.log(), f"{text!r} in the log of Mosquitto", timeout_s)

    def config(self) -> str:
        """The text of mosquitto.conf."""
        lines = [f"listener {self.port} {self.host}", *self.listener]
        if self._standard:
            lines.append("allow_anonymous true")
        if self._persistence:
            lines += ["persistence true", f"persistence_location {self.folder}/", "autosave_interval 1"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            lines.append("user root")  # else it becomes the user mosquitto, which cannot read a test's folder
        lines += [f"log_dest file {self.log_path}", "log_type all", "connection_messages true", self.options]
        return "\n".join(lines) + "\n"

    def start(self) -> None:
        """Start (again) on the same port with the same folder; returns once the port answers."""
        assert not self.running, "the broker is running already"
        program = find_mosquitto()
        assert program is not None, "these tests need a real mosquitto (apt-get install mosquitto)"
        config = self.folder / "mosquitto.conf"
        config.write_text(self.config())
        self._process = subprocess.Popen(
            [program, "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(
            lambda: not self.running or port_answers(self.port, self.host),
            f"an answer at {self.host}:{self.port}",
        )
        assert self.running, f"mosquitto ended at its start:\n{self.log()}"

    def stop(self) -> None:
        """SIGTERM, and wait: Mosquitto saves its state."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """`stop()` and `start()`: sessions and queued messages are kept."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """SIGSTOP: the port stays open, nothing is answered. Undo with `resume()`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.running:
            self.resume()
            self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, signal_number: int) -> None:
        if self._process is None:
            return
        for _attempt in range(int(_DEADLINE_S)):
            self._process.send_signal(signal_number)
            try:
                self._process.wait(1.0)
                break
            except subprocess.TimeoutExpired:
                continue  # Mosquitto forgets a SIGTERM that comes just before its main loop begins
        else:
            raise AssertionError(f"mosquitto {self._process.pid} does not end")
        self._process = None
