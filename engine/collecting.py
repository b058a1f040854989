"""The garbage collector of a process that lives long and makes few cycles.

What the program is made of is set apart once, and young objects are looked at rarely: a batch of decisions holds many
at the same time, none of them in a cycle, and a collector that counts them would walk the whole process again and again.
Reference counting frees as before; cycles (exceptions with their tracebacks) are only found later.
"""

from __future__ import annotations

import gc
from typing import Final

_YOUNG_MAX: Final = 50_000


def settle() -> None:
    """Called once, when everything is loaded and before the work begins."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_MAX, 20, 20)
