"""How many cases each branch of permit.yaml must get, counted straight from the event log.

Deliberately shares nothing with the rest: not the reader (SAX here), not the form of times (moments with their zones
here, text there), not the language of the rule (Python here, jq there). What agrees with this is right for a reason.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from xml.sax import handler, make_parser
from xml.sax.xmlreader import AttributesImpl


def branch_of(case: Mapping[str, str]) -> str:
    """The branch for a trace's attributes as they stand in the file."""
    match case["department"], case["channel"]:
        case (("Experts" | "Customer contact"), _):
            return "specialist"
        case department, _ if department != "General":
            return "unknown"
        case _, channel if channel != "Internet":
            return "counter"
    if "enddate" not in case:
        return "pending"
    late = datetime.fromisoformat(case["enddate"]) > datetime.fromisoformat(case["deadline"])
    return "overdue" if late else "regular"


def count_branches(path: Path) -> dict[str, int]:
    """Branch -> cases, of a log that xes.read_cases accepts."""
    counting = _Counting()
    parser = make_parser()  # noqa: S317 - expat itself bounds what entities may grow to
    parser.setFeature(handler.feature_external_ges, False)
    parser.setContentHandler(counting)
    zipped = path.read_bytes()[:2] == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as stream:
        parser.parse(stream)
    return dict(counting.found)


class _Counting(handler.ContentHandler):
    """Attributes count where they are children of a trace: two levels below the log."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._open: list[str] = []
        self._case: dict[str, str] = {}

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802 - SAX calls it so
        name = name.rpartition(":")[2]
        if name == "trace":
            self._case = {}
        elif self._open[-1:] == ["trace"] and name != "event" and "key" in attrs:
            self._case[attrs["key"]] = attrs["value"]
        self._open.append(name)

    def endElement(self, name: str) -> None:  # noqa: N802
        if self._open.pop() == "trace":
            self.found[branch_of(self._case)] += 1
