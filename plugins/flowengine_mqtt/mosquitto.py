"""A Mosquitto of our own: generated config, own folder, found again after a kill -9 of the engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import structlog

from flowengine import N_, _
from flowengine_mqtt.atomic import write_atomically
from flowengine_mqtt.errors import BrokerError

log = structlog.get_logger(__name__)

_POLL = 0.02
_START_WITHIN = 10.0
_STOP_WITHIN = 5.0
_TELL_AGAIN = 0.5
_LOG_LIMIT = 1_000_000

# In flight: a session on MQTT 3.1.1 cannot ask for more than this. Queued: Mosquitto silently drops what goes
# beyond, 1000 by default, which a restart of the engine under load would reach; the bytes bound its memory.
_CONFIG = """\
# Written by flowengine at each start; changes are lost.
listener {port} {host}
allow_anonymous true
set_tcp_nodelay true
persistence true
persistence_location {folder}/
autosave_interval 5
autosave_on_changes false
max_inflight_messages 512
max_queued_messages 100000
max_queued_bytes 268435456
log_dest stderr
log_type error
log_type warning
log_type notice
"""


def find_mosquitto() -> str | None:
    """Where the program is, or None. Debian keeps it in /usr/sbin, which is often not on a user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """One `mosquitto` process that listens on `host:port` and keeps its state in `folder`.

    It runs in a session of its own, so that neither Ctrl-C nor the death of the engine ends it: what devices
    send meanwhile is kept. The next start finds it by its pid file and adopts it, or replaces it if the
    config changed.
    """

    def __init__(self, program: str, folder: Path, host: str, port: int) -> None:
        self._program = program
        self._folder = folder.resolve()
        self._host = host
        self._port = port
        self._config_path = self._folder / "mosquitto.conf"
        self._pid_path = self._folder / "mosquitto.pid"
        self._log_path = self._folder / "mosquitto.log"
        self._pid: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process while it is ours to use."""
        return self._pid

    async def start(self) -> None:
        """Start or adopt it; returns once the port answers. Raises BrokerError, OSError."""
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        config = self._config()
        digest = hashlib.sha256(f"{self._program}\n{config}".encode()).hexdigest()
        if await self._adopt(digest):
            return
        if await answers(self._host, self._port):
            raise BrokerError(taken(self._host, self._port))
        write_atomically(self._config_path, config)
        self._spawn()
        write_atomically(self._pid_path, json.dumps({"pid": self._pid, "config": digest}))
        await self._wait_until_up()

    async def stop(self) -> None:
        """SIGTERM, upon which it saves its state, and SIGKILL if it has not ended within 5 s."""
        if self._pid is not None:
            await self._end(self._pid)
            self._pid = self._child = None
        self._pid_path.unlink(missing_ok=True)

    def _config(self) -> str:
        config = _CONFIG.format(host=self._host, port=self._port, folder=self._folder)
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            config += "user root\n"  # else it becomes the user mosquitto, who cannot write to our folder
        return config

    async def _adopt(self, digest: str) -> bool:
        """Whether one that we started earlier is running and usable; one that is not is ended."""
        try:
            record = json.loads(self._pid_path.read_text(encoding="utf-8"))
            pid, started_with = int(record["pid"]), record["config"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if not self._is_ours(pid):
            return False
        if started_with == digest and await answers(self._host, self._port):
            log.info(N_("the embedded broker of an earlier run is still there and is used again"), pid=pid)
            self._pid = pid
            return True
        log.info(N_("the embedded broker of an earlier run is replaced"), pid=pid)
        await self._end(pid)
        return False

    def _spawn(self) -> None:
        if self._log_path.exists() and self._log_path.stat().st_size > _LOG_LIMIT:
            self._log_path.replace(self._log_path.with_suffix(".log.1"))
        with open(self._log_path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
            self._child = subprocess.Popen(
                [self._program, "-c", str(self._config_path)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o077,  # what it keeps of messages is its owner's
            )
        self._pid = self._child.pid

    async def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _START_WITHIN
        while self._child is not None and self._child.poll() is None:
            if await answers(self._host, self._port) and self._child.poll() is None:
                return
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_POLL)
        await self.stop()
        if await answers(self._host, self._port):
            raise BrokerError(taken(self._host, self._port))
        raise BrokerError(
            _("The embedded broker did not come up. The end of its log, {file}:\n{tail}").format(
                file=self._log_path, tail=self._log_tail()
            )
        )

    async def _end(self, pid: int) -> None:
        started = told = time.monotonic()
        signal_number = signal.SIGTERM
        while self._is_ours(pid):
            now = time.monotonic()
            if now - started > _STOP_WITHIN:
                signal_number = signal.SIGKILL
            if now >= told:  # and again: Mosquitto forgets a SIGTERM that comes just before its main loop begins
                os.kill(pid, signal_number)
                told = now + _TELL_AGAIN
            await asyncio.sleep(_POLL)

    def _is_ours(self, pid: int) -> bool:
        """Whether `pid` is alive and a mosquitto that runs with our config: pids are used again."""
        if self._child is not None and self._child.pid == pid:
            return self._child.poll() is None
        command = _command_line(pid)
        return len(command) >= 3 and command[1:3] == ["-c", str(self._config_path)]

    def _log_tail(self) -> str:
        try:
            return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-10:])
        except OSError as problem:
            return str(problem)


async def answers(host: str, port: int) -> bool:
    """Whether something accepts connections at `host:port`."""
    try:
        async with asyncio.timeout(2.0):
            _reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.transport.abort()
    return True


def taken(host: str, port: int) -> str:
    """What to tell the user when another program has the port."""
    return _(
        "Port {port} is taken by another program, so the embedded broker cannot start. "
        "If it is an MQTT broker, use it: MQTT_URL=mqtt://{host}:{port}. "
        "Or let the embedded one listen elsewhere: MQTT_URL=embedded:{other}."
    ).format(host=host, port=port, other=port + 1)


def _command_line(pid: int) -> list[str]:
    """The words of a running process's command line; empty if there is no such process."""
    proc = Path("/proc")
    try:
        if (proc / "self").exists():
            return [os.fsdecode(word) for word in (proc / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]]
        shown = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    except OSError:
        return []
    program, _dash, config = shown.stdout.strip().partition(" -c ")
    return [program, "-c", config] if config else []
