"""Real annotation folders, and short forms of what readers give and are given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from vtr_jax.data.split import Split


def _pairs(split: Split) -> list[list[str]]:
    return [
        [split.clips[clip].clip_id, caption]
        for clip, caption in zip(split.caption_clip, split.captions, strict=True)
    ]


@pytest.fixture(scope="session")
def pairs() -> Callable[[Split], list[list[str]]]:
    """Clip id and caption of every item, as the originals' loaders list them."""
    return _pairs


@pytest.fixture(scope="session")
def digest() -> Callable[[str], str]:
    """Twelve digits that stand for a real caption, whose text does not belong here."""
    return lambda text: hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.fixture(scope="session")
def real_annotations(shared_dir) -> Path:
    """The folder with one folder of real (or exactly alike) annotations a data set."""
    return shared_dir / "annotations"


# The same list written in every way that must make no difference.
LIST_FORMS = {
    "plain": b"-one_1\n_two\n",
    "no last line end": b"-one_1\n_two",
    "carriage returns": b"-one_1\r\n_two\r\n",
    "byte order mark": b"\xef\xbb\xbf-one_1\n_two\n",
    "blank lines and spaces": b"\n -one_1 \n\n_two\t\n\n",
}


@pytest.fixture(params=LIST_FORMS.values(), ids=LIST_FORMS.keys())
def list_bytes(request) -> bytes:
    """A list of the ids -one_1 and _two in one of the forms that lists come in."""
    return request.param
