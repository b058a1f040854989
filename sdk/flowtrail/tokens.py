"""A task's token: URL-safe text that names one attempt of one run, for whoever completes it from outside.

Opaque to its bearers and no secret: what it permits an API key permits. Server and SDK write it alike (a test compares).
"""

from __future__ import annotations

import base64
import json


def token_of(flow_id: str, task: str, run: int, attempt: int) -> str:
    named = json.dumps([flow_id, task, run, attempt], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(named.encode()).decode().rstrip("=")
