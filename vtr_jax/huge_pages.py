"""Memory in pages of two megabytes for a training process on a CPU.

XLA takes a step's temporaries from the C library at its beginning and gives them back at its end.
Two gigabytes in pages of four kilobytes are half a million page faults a step, a tenth of its time
with ViT-B/32. glibc asks for large pages if an environment variable says so when a program starts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
HUGE = "glibc.malloc.hugetlb=1"
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def with_huge_pages(tunables: str | None) -> str | None:
    """The value GLIBC_TUNABLES should have, None where it is not to be changed.

    tunables: its value now. It is left alone where it speaks of huge pages itself, and where the
    kernel gives none (never) or gives them unasked (always).
    """
    if "glibc.malloc.hugetlb" in (tunables or "") or not SETTING.exists():
        return None
    if "[madvise]" not in SETTING.read_text():
        return None
    return f"{tunables}:{HUGE}" if tunables else HUGE


def start_again_with_huge_pages() -> None:
    """Replace this program by itself with huge pages, once; process id and arguments stay.

    To be called before anything is begun. Returns where nothing is to be changed, and on systems
    without glibc, which have no such setting.
    """
    value = with_huge_pages(os.environ.get(TUNABLES))
    if value is None:
        return
    os.environ[TUNABLES] = value
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
