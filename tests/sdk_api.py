"""A stand-in for the API, as far as the SDK's worker needs it: /registry and /queues over stdlib http.server.

For tests of the SDK alone; tests of the whole use the real API.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from schemas.registry import newest, released

KEY = "test.key"


def bootstrap(kafka: str, prefix: str) -> dict[str, Any]:
    """What GET /registry/bootstrap answers."""
    kinds = sorted({schema.kind for schema in released()})
    return {
        "kafka": kafka,
        "topic_prefix": prefix,
        "partitions": 4,
        "topics": {
            "commands": f"{prefix}commands",
            "events": f"{prefix}events",
            "tasks_prefix": f"{prefix}tasks.",
            "cancellations": f"{prefix}cancellations",
        },
        "schemas": {
            kind: {
                "id": newest(kind).id,
                "fingerprint": newest(kind).fingerprint.hex(),
                "version": newest(kind).version,
                "schema": newest(kind).text,
            }
            for kind in kinds
        },
    }


@contextmanager
def serving(kafka: str, prefix: str, ensure_topic: Callable[[str], None], port: int = 0) -> Iterator[str]:
    """The URL of a server that answers as the API would; `ensure_topic` makes a queue's topic."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                self.answer(
                    401,
                    {"title": "Unauthorized", "status": 401, "detail": "Expected an API key but found none"},
                )
            elif self.path == "/registry/bootstrap":
                self.answer(200, bootstrap(kafka, prefix))
            else:
                self.answer(404, {"title": "Not found", "status": 404})

        def do_POST(self) -> None:
            queue = self.path.removeprefix("/queues/")
            topics = [f"{prefix}tasks.{queue}{priority}" for priority in (".high", "", ".low")]
            for topic in topics:
                ensure_topic(topic)
            self.answer(200, {"queue": queue, "topic": topics[1], "topics": topics})

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
