"""What mqttwarn calls for each message: a filter, and the fields that the backend gets."""

import json
from typing import Any


def other_than_record(topic: str, message: str, section: object = None, srv: object = None) -> bool:
    """True for what is not to be posted."""
    return not topic.endswith("_upLink") or '"verifiedRecordU"' not in message[:200]


def fields(topic: str, data: dict[str, Any], srv: object = None) -> dict[str, Any]:
    """The fields of the record. mqttwarn posts once for a message, so of several records in one only the first is posted."""
    record = json.loads(data["payload"])["data"][0]
    return {
        "user_id": record["num"],
        "img": record["liveImageBase64"],
        "bot_time": record["time"],
        "name": record["name"],
        "verifiedCode": record["verifiedCode"],
        "personType": record["personType"],
    }
