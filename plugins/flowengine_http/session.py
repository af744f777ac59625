"""The client on aiohttp's public API."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from flowengine_http.client import HEADERS, Response, as_written, beginning, connector, joined, no_answer


class SessionClient:
    """`HttpClient` on aiohttp's ClientSession: good with any release of it, at three to four times the cost of `DirectClient`.

    timeout: seconds for a whole exchange. ca: a PEM file with the certificates to trust in place of the
    system's; empty for those.
    """

    def __init__(self, *, timeout: float, ca: str = "") -> None:
        self._timeout = timeout
        self._ca = ca
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=connector(self._ca),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            trust_env=False,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        if self._session is None:
            raise RuntimeError("the client is not open")
        target = as_written(url)
        try:
            async with self._session.post(target, data=body, headers=headers, allow_redirects=False) as answer:
                start = await beginning(answer.content)
                return Response(answer.status, joined(answer.headers), start)
        except (aiohttp.ClientError, OSError) as failure:
            raise no_answer(failure, url, self._timeout) from failure
