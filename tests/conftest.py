"""What holds for every test: English texts, whatever the machine speaks, and no proxy before loopback."""

from __future__ import annotations

import os

# Set when this file is read, so before flowengine looks up its first text; child processes get it too.
os.environ["LANGUAGE"] = "en"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
for parameter in ("MQTT_URL", "BACKEND_URL", "COMMAND_LISTEN", "COMMAND_TOKEN", "DEVICE"):
    os.environ.pop(parameter, None)
