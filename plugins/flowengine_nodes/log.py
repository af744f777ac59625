"""The node `log`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flowengine import Action, Message, Meta, NodeOptions, Reject, Template, _, as_text, shorten
from flowengine_nodes._oneline import one_line

_LONGEST = 900


class LogText(Template):
    """A template whose text is safe to log: long values shortened, `-` for what leads nowhere, one line."""

    def value(self, value: Any) -> str:
        try:
            return as_text(shorten(value))
        except (
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:  # not from JSON: a node's own object
            return f"<{type(value).__name__}: {type(error).__name__}>"

    def render(self, msg: Message) -> str:
        text = one_line(
            "".join(piece if isinstance(piece, str) else self._found(piece.get, msg) for piece in self.pieces)
        )
        if len(text) > _LONGEST:
            return text[:_LONGEST] + _("… ({n} characters)").format(n=len(text))
        return text or "-"

    def _found(self, get: Any, msg: Message) -> str:
        try:
            value = get(msg)
        except Reject:
            return "-"
        return self.value(value)


class Log(Action):
    """Writes a line to the log for each message.

    The text may hold references (`"from {device}: {payload.cmd}"`); a reference that leads nowhere reads `-`.
    Long texts, as images in base64 are, stand as their head, length and hash, also inside objects and lists;
    long lists and objects are cut, and so is a line of more than 900 characters. Bytes are shown as UTF-8
    with `�` for what is none.

    Guarantees:
        Writes one line and never fails a message, whatever its payload. Control characters and line breaks
        are written out (`\\n`), so a device cannot forge a line of the log. A message that ends here counts
        as delivered; the log confirms nothing, so nothing is stored for it and after a kill it is not written
        again. Keeps order, id, payload and `result`.

    Example:
        - log: {text: "from {device}: {payload}", level: warning}
    """

    type = "log"
    inline = True

    class Options(NodeOptions):
        bare = "text"
        text: Annotated[
            LogText,
            Meta(description="What to write", examples=["from {device}: {payload}", "{payload.name} came in"]),
        ] = LogText("{payload}")
        level: Annotated[
            Literal["debug", "info", "warning", "error"],
            Meta(description="How important the line is", examples=["warning"]),
        ] = "info"

    def setup(self) -> None:
        self._write = getattr(self.log, self.options.level)
        self._render = self.options.text.render

    @property
    def confirming(self) -> bool:
        return False

    def deliver(self, msg: Message) -> None:
        self._write(self._render(msg))
