"""Other people's event logs, read as recorded processes: XES, OCEL 2.0, CSV, JSON lines.

    from flowtrail.logs import read_cases, pieces_of

A reader gives cases; `pieces_of` makes of a case what a trail's recorder would have sent; `importing` sends it. Nothing of a log is
left out in silence: what cannot be read raises InputError with its place.
"""

from __future__ import annotations

from flowtrail.logs.cases import Case, Entry
from flowtrail.logs.importing import Imported, import_log
from flowtrail.logs.pieces import pieces_of
from flowtrail.logs.reading import FORMATS, read_cases
from flowtrail.logs.tables import Mapping

__all__ = ["FORMATS", "Case", "Entry", "Imported", "Mapping", "import_log", "pieces_of", "read_cases"]
