"""Image settings of open_clip and Hugging Face are applied exactly or rejected by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtr_jax.convert.image_settings import huggingface_image_settings, open_clip_image_settings
from vtr_jax.data.resize import resize_picture
from vtr_jax.preprocessing import Preprocessing

PATH = Path("folder/file.json")
CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 32},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, {}),
        ({"size": 32}, {}),
        ({"size": [32, 32], "mode": "RGB"}, {}),
        ({"resize_mode": "squash"}, {"resize_mode": "squash"}),
        ({"resize_mode": "longest", "fill_color": 0}, {"fill_color": (0, 0, 0)}),
        ({"fill_color": [1, 2, 3]}, {"fill_color": (1, 2, 3)}),
        ({"interpolation": "random"}, {"interpolation": "bicubic"}),
        ({"interpolation": "bilinear"}, {"interpolation": "bilinear"}),
        ({"mean": 0.5, "std": [0.5, 0.5, 0.5]}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        ({"mean": [0, 0, 0], "std": [1, 1, 1]}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"mean": None, "interpolation": None}, {}),
    ],
)
def test_open_clip_settings_are_read(stated, expected):
    settings = open_clip_image_settings(stated, 32, PATH)
    assert expected.items() <= settings.items()
    assert settings.keys() <= {*stated, *expected}


@pytest.mark.parametrize(
    ("stated", "key"),
    [
        ({"size": 224}, "size"),
        ({"size": [32, 64]}, "size"),
        ({"mode": "L"}, "mode"),
        ({"resize_mode": "stretch"}, "resize_mode"),
        ({"interpolation": "lanczos"}, "interpolation"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"mean": "0.5"}, "mean"),
        ({"std": [0.5, 0.5, 0.0]}, "std"),
        ({"std": [0.5, 0.5, float("nan")]}, "std"),
        ({"fill_color": 300}, "fill_color"),
        ({"fill_color": "red"}, "fill_color"),
        ({"sharpen": 2}, "sharpen"),
    ],
)
def test_open_clip_settings_that_cannot_be_applied_are_named(stated, key):
    with pytest.raises(ValueError, match=rf"file\.json.*{key}"):
        open_clip_image_settings(stated, 32, PATH)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"do_resize": False}, "do_resize"),
        ({"do_center_crop": False}, "do_center_crop"),
        ({"size": {"height": 32, "width": 48}, "do_center_crop": False}, "size"),
        ({"size": {"height": 48, "width": 64}}, "size"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size"),
        ({"size": {"max_height": 32, "max_width": 32}}, "size"),
        ({"size": {"shortest_edge": 16}}, "crop_size"),
        ({"size": "32"}, "size"),
        ({"crop_size": {"height": 16, "width": 16}}, "crop_size"),
        ({"crop_size": {"height": 32, "width": 16}}, "crop_size"),
        ({"resample": 6}, "resample"),
        ({"resample": "bicubic"}, "resample"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"rescale_factor": 0}, "rescale"),
        ({"image_mean": [0.5]}, None),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_std": [0.0, 1.0, 1.0]}, "std"),
        ({"do_pad": True}, "do_pad"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"do_flip_channel_order": False, "do_pad": None}, None),
        ({"use_square_size": True}, "use_square_size"),
    ],
)
def test_processor_settings_that_cannot_be_applied_are_named(changes, key):
    processor = CLIP_PROCESSOR | changes
    if key is None:
        huggingface_image_settings(processor, 32, PATH)
        return
    with pytest.raises(ValueError, match=rf"file\.json.*{key}"):
        huggingface_image_settings(processor, 32, PATH)


def test_processor_of_another_type_must_state_everything():
    stated = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    with pytest.raises(ValueError, match="resample"):
        huggingface_image_settings(stated, 32, PATH)
    complete = CLIP_PROCESSOR | {"image_processor_type": "ViTImageProcessor"}
    assert huggingface_image_settings(complete, 32, PATH) == huggingface_image_settings(
        CLIP_PROCESSOR, 32, PATH
    )


@pytest.mark.parametrize("shape", [(45, 80), (80, 45), (32, 35), (33, 33)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": 32, "crop_size": 32},
        {"size": {"shortest_edge": 40}},
        {"size": {"height": 32, "width": 32}, "do_center_crop": False},
        {"size": {"height": 32, "width": 32}},
        {"size": {"height": 41, "width": 41}},
        {"resample": 0},
        {"resample": 1},
        {"resample": 2},
        {"resample": 4},
        {"resample": 5},
        {"do_rescale": False},
        {"rescale_factor": 1 / 128},
        {"do_normalize": False},
        {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1.0]},
        {"do_rescale": False, "do_normalize": False},
    ],
    ids=str,
)
def test_pixels_equal_hugging_faces_own_processor(changes, shape):
    processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    stated = CLIP_PROCESSOR | changes
    image = np.random.default_rng(shape).integers(0, 256, (*shape, 3), np.uint8)
    theirs = processors.CLIPImageProcessorPil(**stated)(image, input_data_format="channels_last")
    expected = np.moveaxis(np.asarray(theirs["pixel_values"][0], np.float32), 0, -1)
    ours = Preprocessing(resolution=32, **huggingface_image_settings(stated, 32, PATH))
    scale = ours.pixel_scale
    pixels = resize_picture(image, ours.resize).astype(np.float32)
    np.testing.assert_allclose(
        (pixels * scale.rescale - scale.mean) / scale.std, expected, rtol=1e-5, atol=1e-5
    )
