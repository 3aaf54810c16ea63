"""Memory in pages of two megabytes for a training process on a CPU.

XLA takes a step's temporaries from the C library at its beginning and gives them back at its end.
Two gigabytes in pages of four kilobytes are half a million page faults a step, a tenth of its time
with ViT-B/32. glibc asks for large pages if an environment variable says so when a program starts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
HUGE = "glibc.malloc.hugetlb=1"
# Set by the program that starts itself again, so that its successor does not, whatever has become
# of the tunables on the way.
MARKER = "VTR_JAX_STARTED_AGAIN"
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

    To be called before anything is begun. Returns where nothing is to be changed, where the program
    cannot be started, and on systems without glibc, which have no such setting.
    """
    value = with_huge_pages(os.environ.get(TUNABLES))
    started_again = os.environ.pop(MARKER, None) is not None
    if value is None or started_again:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {**os.environ, TUNABLES: value, MARKER: "1"}
    with contextlib.suppress(OSError):  # without huge pages it is slower, nothing else
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
