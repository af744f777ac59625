"""The node `plate-normalize`."""

import re
import unicodedata
from collections.abc import Iterable
from typing import ClassVar

from flowengine import Annotated, Message, Meta, NodeOptions, Path, Reject, Step

_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_BODY = "[A-HJ-NP-Z0-9]"  # plates have neither I nor O
_PLATE = re.compile(rf"[{_PROVINCE}][A-Z](?:{_BODY}{{5,6}}|{_BODY}{{4}}[挂学警港澳领])")
_BETWEEN = re.compile(r"[\s·・•.-]")


class PlateNormalize(Step):
    """Reads a Chinese licence plate, however the camera wrote it, and knows it from here on as `{plate}`.

    Full-width letters become plain ones, small ones capital; blanks and dots between are left out: `京A·12345`, `京a 12345` and
    `京A12345` are one plate. The payload stays as it came.

    Guarantees:
        Keeps order, id and payload; never more than one message out for one in. What is no plate fails this message alone, with a
        reason that shows what stands there; `on_error` has it.

    Example:
        - plate-normalize: {field: plate}
        - log: "{plate}"
    """

    type = "plate-normalize"

    class Options(NodeOptions):
        bare: ClassVar[str] = "field"
        field: Annotated[Path, Meta(description="Where the plate stands", examples=["plate"])] = Path("plate")

    def metadata(self) -> Iterable[str]:
        return ("plate",)

    def process(self, msg: Message) -> Message:
        read = self.options.field.get(msg.payload)
        if not isinstance(read, str):
            raise Reject(f"'{self.options.field.text}' is no text")
        plate = _BETWEEN.sub("", unicodedata.normalize("NFKC", read)).upper()
        if _PLATE.fullmatch(plate) is None:
            raise Reject(f"'{read[:40]}' is no licence plate")
        return msg.with_meta(plate=plate)
