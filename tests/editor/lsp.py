"""A small client for a language server: enough of LSP 3.17 to ask what an editor asks.

It speaks JSON-RPC over the server's stdin and stdout, with the framing of LSP 3.17, "Base Protocol".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEADLINE = 30.0
"""Seconds any one answer may take; the first one includes the start of Node.js."""


@dataclass(frozen=True)
class Position:
    """A place in a document, counted from zero, as LSP counts (`character` in UTF-16 code units)."""

    line: int
    character: int


class LanguageServer:
    """A running language server, made by `language_server`. A wait ends with `TimeoutError` at `DEADLINE`."""

    def __init__(self, process: asyncio.subprocess.Process, settings: dict[str, Any]) -> None:
        self._process = process
        self._settings = settings
        self._next_id = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._diagnostics: dict[str, list[dict[str, Any]]] = {}
        self._news = asyncio.Condition()
        self._configured = asyncio.Event()

    async def initialize(self, root: Path) -> None:
        """Opens the session with `root` as the workspace folder; returns once the server has the settings."""
        folder = {"uri": root.as_uri(), "name": root.name}
        capabilities = {
            "workspace": {"configuration": True, "workspaceFolders": True},
            "textDocument": {
                "completion": {"completionItem": {"snippetSupport": True, "documentationFormat": ["markdown"]}},
                "hover": {"contentFormat": ["markdown"]},
                "publishDiagnostics": {},
            },
        }
        params = {
            "processId": None,
            "rootUri": folder["uri"],
            "workspaceFolders": [folder],
            "capabilities": capabilities,
        }
        await self.request("initialize", params)
        await self.notify("initialized", {})
        await self.notify("workspace/didChangeConfiguration", {"settings": self._settings})
        await asyncio.wait_for(self._configured.wait(), DEADLINE)

    async def open(self, path: Path, text: str) -> str:
        """Opens a document with the given text, which need not be on disk, and returns its URI."""
        uri = path.as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        await self.notify("textDocument/didOpen", {"textDocument": document})
        return uri

    async def complete(self, uri: str, at: Position) -> list[dict[str, Any]]:
        """What the editor offers at a place: LSP `CompletionItem`s."""
        answer = await self.request("textDocument/completion", _place(uri, at))
        return answer if isinstance(answer, list) else answer["items"]

    async def hover(self, uri: str, at: Position) -> str:
        """The text shown over a place; empty if there is none."""
        answer = await self.request("textDocument/hover", _place(uri, at))
        return answer["contents"]["value"] if answer else ""

    async def diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """Waits until the server has published its verdict on a document; returns LSP `Diagnostic`s."""
        async with asyncio.timeout(DEADLINE), self._news:
            await self._news.wait_for(lambda: uri in self._diagnostics)
            return self._diagnostics[uri]

    async def request(self, method: str, params: Any) -> Any:
        """Asks and waits for the answer. Raises `RuntimeError` with the server's words if it is an error."""
        self._next_id += 1
        answer = self._answers[self._next_id] = asyncio.get_running_loop().create_future()
        await self._write({"id": self._next_id, "method": method, "params": params})
        return await asyncio.wait_for(answer, DEADLINE)

    async def notify(self, method: str, params: Any) -> None:
        """Tells the server something that has no answer."""
        await self._write({"method": method, "params": params})

    async def listen(self) -> None:
        """Reads what the server says until it closes its output."""
        while message := await self._read():
            if "method" in message and "id" in message:
                await self._write({"id": message["id"], "result": self._answer(message)})
                if message["method"] == "workspace/configuration":
                    self._configured.set()
            elif message.get("method") == "textDocument/publishDiagnostics":
                async with self._news:
                    self._diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
                    self._news.notify_all()
            elif "id" in message:
                self._settle(message)
        for waiting in self._answers.values():
            waiting.set_exception(ConnectionError("the language server closed its output"))

    def _settle(self, message: dict[str, Any]) -> None:
        answer = self._answers.pop(message["id"])
        if answer.cancelled():
            return
        if "error" in message:
            answer.set_exception(RuntimeError(message["error"]["message"]))
        else:
            answer.set_result(message["result"])

    def _answer(self, question: dict[str, Any]) -> Any:
        if question["method"] != "workspace/configuration":
            return None
        sections = (item.get("section", "") for item in question["params"]["items"])
        return [self._settings.get(section) for section in sections]

    async def _write(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await self._process.stdin.drain()

    async def _read(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        length = 0
        while line := (await self._process.stdout.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            return None
        message: dict[str, Any] = json.loads(await self._process.stdout.readexactly(length))
        return message


def _place(uri: str, at: Position) -> dict[str, Any]:
    return {"textDocument": {"uri": uri}, "position": {"line": at.line, "character": at.character}}


@asynccontextmanager
async def language_server(
    command: Sequence[str], root: Path, settings: dict[str, Any]
) -> AsyncIterator[LanguageServer]:
    """Runs a language server for the folder `root`; `settings` are the editor's, by section."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    server = LanguageServer(process, settings)
    listener = asyncio.create_task(server.listen())
    try:
        await server.initialize(root)
        yield server
        await server.request("shutdown", None)
        await server.notify("exit", None)
        await asyncio.wait_for(process.wait(), DEADLINE)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listener
