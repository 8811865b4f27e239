"""The images of a widget: what the user gave, in all forms, and what is dropped later."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import caap_lab as cl
from caap_lab.errors import InputError
from caap_lab.widgets import uploads
from caap_lab.widgets.photos import photos_of, uploaded


def test_images_of_all_kinds(model: cl.HookedViT, scenes: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    scenes[0].image.save(path)
    forms: dict[str, Any] = {
        f"'{path}'": path,
        "image": scenes[0].image,
        "image.image": scenes[0],
        "images[0].image": scenes[:1],
        "images[0]": [scenes[0].image],
    }
    for call, images in forms.items():
        (photo,) = photos_of(model, images)
        assert photo.call == call
        assert np.array_equal(photo.pixels, np.asarray(scenes[0].image))
    data = cl.open_images(f"folder:{tmp_path}")
    assert [(photo.name, photo.call) for photo in photos_of(model, data)] == [("scene.png", "images[0].image")]


def test_uploads_are_opened_by_name(model: cl.HookedViT, scenes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "KEPT", 2)
    monkeypatch.setattr(uploads, "_files", uploads._files.copy())
    uploads._files.clear()
    with pytest.raises(InputError, match=r"No photo 'a.png' was dropped .* use cl.load_image\(path\)"):
        cl.widgets.uploaded_photo("a.png")
    contents = []
    for scene in scenes[:3]:
        content = BytesIO()
        scene.image.save(content, format="png")
        contents.append(content.getvalue())
    names = [uploaded(model, "a.png", content).name for content in (*contents[:2], contents[0])]
    assert names == ["a.png", "a (2).png", "a.png"]  # the same file again has its own name
    opened = cl.widgets.uploaded_photo("a (2).png")
    assert isinstance(opened, Image.Image) and np.array_equal(opened, scenes[1].image)
    assert uploaded(model, "b.png", contents[2]).call == "cl.widgets.uploaded_photo('b.png')"
    with pytest.raises(InputError, match=r"Dropped photos: a.png, b.png\."):
        cl.widgets.uploaded_photo("a (2).png")  # the longest unused went
