"""Data of one's own, with every fault it may have: each is named with its file and line.

And nothing outside the folder that was given is ever opened.
"""

import json
import os
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from dsd_tutorial.datasets import ImageFile, MissingDataError, draw_items, read_folder
from dsd_tutorial.datasets.images import ImageFileError, open_image, to_rgb
from dsd_tutorial.datasets.own import read_images
from dsd_tutorial.datasets.sources import ItemsFileError
from dsd_tutorial.datasets.winoground import read_winoground

GOOD = {"images": ["a.png"], "texts": ["x", "y"], "correct": 0}


@pytest.fixture
def folder(tmp_path):
    """A folder with the image a.png, beside another with secret.png."""
    for name in ("mine/a.png", "mine/sub/b.png", "other/secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    return tmp_path / "mine"


def write(folder, *rows, encoding="utf-8", end="\n"):
    """Write items.jsonl: texts as they are, all else as JSON."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "items.jsonl").write_bytes(end.join(lines).encode(encoding))


def refused(folder, *said):
    """Check that the folder is refused in one line that says all of this and names the file."""
    with pytest.raises(ItemsFileError) as caught:
        read_folder(folder)
    message = str(caught.value)
    assert str(folder / "items.jsonl") in message and "\n" not in message
    for part in said:
        assert part in message, message


class Opened:
    """Paths of the files that Python opens, by whatever function, since `start`."""

    def __init__(self):
        self.paths, self.on = [], False
        sys.addaudithook(self.note)  # for good, so it does next to nothing when it is off

    def note(self, event, args):
        if self.on and event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            self.paths.append(os.fsdecode(args[0]))

    def start(self):
        self.paths, self.on = [], True

    def any(self, part):
        """Whether one of the paths has `part` in it."""
        return any(part in path for path in self.paths)


OPENED = Opened()


@pytest.fixture
def opened():
    yield OPENED
    OPENED.on = False


# -- items.jsonl as text -------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n  \n"])
def test_every_editor_writes_the_same_items(folder, encoding, end):
    rows = [GOOD | {"texts": [f"ä{i}", "\u2028y"]} for i in range(3)]
    write(folder, *rows)
    expected = read_folder(folder).items
    plain = [json.dumps(row, ensure_ascii=False) for row in rows]
    write(folder, *plain, "", encoding=encoding, end=end)
    assert read_folder(folder).items == expected


def test_joined_files_with_a_mark_each_are_read(folder):
    rows = [json.dumps(GOOD | {"texts": [f"x{i}", "y"]}) for i in range(2)]
    write(folder, *("\ufeff" + row for row in rows))
    assert len(read_folder(folder).items) == 2


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        '{"images": ["a.png"]',
        "{} {}",
        "'a'",
        "[" * 100_000,
        '{"correct": 1' + "0" * 5000 + "}",
    ],
    ids=["cut", "open", "two", "quotes", "deep", "long"],
)
def test_a_broken_line_is_named(folder, broken):
    write(folder, GOOD, "", broken)
    refused(folder, "line 3", "not JSON")


def test_what_is_not_utf8_is_named_with_its_line(folder):
    for start in (b"", b"\xef\xbb\xbf"):
        good = json.dumps(GOOD).encode()
        (folder / "items.jsonl").write_bytes(start + good + b"\n" + good.replace(b"x", b"\xe4"))
        refused(folder, "line 2", "not UTF-8")
    write(folder, GOOD, encoding="utf-16")
    refused(folder, "line 1", "not UTF-8")


def test_a_file_without_items_is_no_task(folder):
    write(folder, "", "  ")
    refused(folder, "holds no items")


def test_a_benchmark_of_the_same_format_is_read_with_the_same_care(tmp_path):
    (tmp_path / "examples.jsonl").write_bytes(b"\xef\xbb\xbf\n{}")
    with pytest.raises(ItemsFileError, match="line 2: no image_0"):
        read_winoground(tmp_path)


# -- the fields of a line ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["images", "texts", "correct"])
def test_a_missing_field_is_named(folder, key):
    write(folder, GOOD, {k: v for k, v in GOOD.items() if k != key} | {"note": 1})
    refused(folder, "line 2", f"no {key}")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"correct": 2}, "0 to 1"),
        ({"correct": -1}, "0 to 1"),
        ({"correct": True}, "0 to 1"),
        ({"correct": "0"}, "0 to 1"),
        ({"correct": 0.0}, "0 to 1"),
        ({"correct": None}, "0 to 1"),
        ({"images": "a.png"}, "list of texts"),
        ({"images": [1]}, "list of texts"),
        ({"images": [""]}, "list of texts"),
        ({"texts": {"x": 1, "y": 2}}, "list of texts"),
        ({"texts": ["x", " "]}, "list of texts"),
        ({"texts": ["x", "\ud83d"]}, "list of texts"),
        ({"images": []}, "0 images, 2 texts"),
        ({"texts": ["x"]}, "one text and several images"),
        ({"images": ["a.png"] * 3}, "3 images, 2 texts"),
        ({"texts": ["x", "x"]}, "'x' stands twice"),
        ({"images": ["a.png", "./a.png"], "texts": ["x"]}, "'a.png' stands twice"),
        ({"kind": None}, "kind is None"),
        ({"kind": ["a"]}, "kind is ['a']"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_line(folder, change, said):
    write(folder, GOOD | {"texts": ["p", "q"]}, "", GOOD | change)
    refused(folder, "line 3", said)


def test_a_wrong_line_is_found_also_where_few_items_are_drawn(folder):
    rows = [GOOD | {"texts": [f"x{i}", "y"]} for i in range(20)]
    write(folder, *rows, GOOD | {"correct": 7})
    with pytest.raises(ItemsFileError, match="line 21"):
        read_folder(folder, n=1)


def test_a_long_value_does_not_fill_the_screen(folder):
    write(folder, GOOD | {"correct": "x" * 10_000})
    with pytest.raises(ItemsFileError) as caught:
        read_folder(folder)
    assert len(str(caught.value)) < 400 + len(str(folder))


def test_lines_of_different_forms_are_named_both(folder):
    write(folder, GOOD, "", GOOD | {"texts": ["x", "y", "z"]})
    refused(folder, "line 3", "line 1", "folders of their own")


@pytest.mark.parametrize(
    "again",
    [
        GOOD,
        GOOD | {"texts": ["y", "x"], "correct": 1},
        GOOD | {"correct": 1},  # and a contradiction
        GOOD | {"images": ["./a.png"]},
        GOOD | {"images": [".//a.png"], "kind": "other"},
    ],
)
def test_a_duplicate_is_refused_with_both_lines(folder, again):
    write(folder, GOOD, "", GOOD | {"texts": ["x", "z"]}, again)
    refused(folder, "line 4", "line 1", "delete one")


def test_two_names_of_one_file_are_one_picture(folder):
    (folder / "alias.png").symlink_to(folder / "a.png")
    write(folder, GOOD, GOOD | {"images": ["alias.png"]})
    refused(folder, "line 2", "line 1", "same images")
    write(folder, GOOD, GOOD | {"images": ["alias.png"], "texts": ["p", "q"]})
    assert len(read_folder(folder).scenes) == 1  # so that no split has it on both sides


# -- where images may lie ----------------------------------------------------------------------


def test_pictures_in_subfolders_and_links_within_are_read(folder):
    (folder / "link.png").symlink_to(folder / "sub" / "b.png")
    write(
        folder,
        GOOD | {"images": ["sub/b.png"]},
        GOOD | {"images": ["link.png"], "texts": ["p", "q"]},
    )
    task = read_folder(folder)
    assert task.images(8).shape == (1, 3, 8, 8)
    assert task.scenes[0].name == "sub/b.png"


def test_a_folder_that_is_a_link_itself_is_where_it_leads(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    write(folder, GOOD)
    for given in (tmp_path / "link", tmp_path / "link" / "items.jsonl"):
        assert read_folder(given).images(8).shape == (1, 3, 8, 8)


OUTSIDE = ["../other/secret.png", "sub/../../other/secret.png", "..\\other\\secret.png", "..",
           "sub/../a.png", "C:\\secret.png", "C:/secret.png", "ABSOLUTE", "OWN ABSOLUTE",
           "link.png", "linked/secret.png", "circle.png", "a\0.png"]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_picture_outside_is_refused_and_never_opened(folder, tmp_path, opened, name):
    (folder / "link.png").symlink_to(tmp_path / "other" / "secret.png")
    (folder / "linked").symlink_to(tmp_path / "other")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    places = {"ABSOLUTE": tmp_path / "other" / "secret.png", "OWN ABSOLUTE": folder / "a.png"}
    write(folder, GOOD, GOOD | {"images": [str(places.get(name, name))]})
    opened.start()
    try:
        refused(folder, "line 2", "nothing outside")
    except MissingDataError:
        assert name == "circle.png"  # newer Pythons: a circle leads nowhere
    assert opened.any("items.jsonl")
    assert not opened.any("other") and not opened.any(".png")


def test_a_link_set_after_reading_is_not_followed_either(folder, tmp_path, opened):
    write(folder, GOOD)
    task = read_folder(folder)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(tmp_path / "other" / "secret.png")
    opened.start()
    with pytest.raises(ImageFileError, match="items.jsonl, line 1: .*a.png lies outside"):
        task.images(8)
    assert not opened.any(".png")


def test_items_that_are_a_link_outside_are_not_read(folder, tmp_path, opened):
    write(tmp_path / "other", GOOD)
    (folder / "items.jsonl").symlink_to(tmp_path / "other" / "items.jsonl")
    opened.start()
    for given in (folder, folder / "items.jsonl"):
        with pytest.raises(ItemsFileError, match="copy the file into"):
            read_folder(given)
    assert not opened.any("items.jsonl")


def test_a_folder_of_pictures_is_not_left_either(folder, tmp_path, opened):
    (folder / "link.png").symlink_to(tmp_path / "other" / "secret.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "within.png").symlink_to(folder / "sub" / "b.png")
    opened.start()
    mine = read_images(folder, 8)
    assert mine.names == ("a.png", "within.png") and set(mine.skipped) == {"link.png", "gone.png"}
    assert "leads out" in mine.skipped["link.png"]
    assert opened.any(str(folder)) and not opened.any("secret")


def test_a_pipe_is_no_picture_and_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.png")
    write(folder, GOOD, GOOD | {"images": ["pipe.png"]})
    with pytest.raises(MissingDataError, match=r"pipe.png \(items.jsonl, line 2\)"):
        read_folder(folder)
    assert "no file" in read_images(folder, 8).skipped["pipe.png"]


@pytest.mark.parametrize("name", ["gone.png", "sub", ".", "x" * 5000])
def test_a_missing_picture_is_named_with_the_line(folder, name):
    write(folder, GOOD, "", GOOD | {"images": [name]})
    with pytest.raises(MissingDataError, match=r"1 image\(s\) missing \(.*items.jsonl, line 3\)"):
        read_folder(folder)


# -- images of every kind ----------------------------------------------------------------------


def break_file(path, kind):
    if kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "postscript":  # Pillow would start a program of its own for it
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    else:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(path, {"png": "PNG", "jpg": "JPEG", "gif": "GIF"}[kind])
        path.write_bytes(path.read_bytes()[:600])


@pytest.mark.parametrize("kind", ["text", "empty", "postscript", "png", "jpg", "gif"])
def test_a_picture_that_cannot_be_read_is_named_with_file_and_line(folder, kind):
    break_file(folder / "broken.png", kind)
    write(folder, GOOD, "", GOOD | {"images": ["broken.png"]})
    with pytest.raises(ImageFileError) as caught:
        read_folder(folder).images(8)
    message = str(caught.value)
    assert message.startswith(f"items.jsonl, line 3: {folder / 'broken.png'} cannot be read")
    assert "leave it out" in message and "\n" not in message
    mine = read_images(folder, 8)
    assert mine.names == ("a.png",) and mine.skipped["broken.png"] == caught.value.why


@pytest.mark.parametrize("times", [1.5, 3])  # Pillow warns, or refuses
def test_a_bomb_ends_in_a_clear_error_before_it_is_decoded(folder, monkeypatch, times):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(64 / times))
    with pytest.raises(ImageFileError, match="a.png cannot be read.*too large.*make it smaller"):
        ImageFile("a", folder / "a.png").open()
    with pytest.raises(ValueError, match=r"a.png: too large"):
        read_images(folder, 8)


@pytest.mark.parametrize("form, many", [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}),
                                        ("TIFF", {})])  # fmt: skip
def test_of_an_animation_the_first_frame_is_taken(folder, form, many):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    name = folder / f"moving.{form.lower()}"
    frames[0].save(name, form, save_all=True, append_images=frames[1:], **many)
    with Image.open(name) as stored:
        assert stored.n_frames == 3
    assert open_image(name).getpixel((4, 4)) == (255, 0, 0)
    mine = read_images(folder, 8)
    torch.testing.assert_close(mine.images[0], mine.images[1])


RAMP = np.tile(np.linspace(0, 255, 32).round().astype(np.uint8), (32, 1))


@pytest.mark.parametrize("kind", ["16.png", "16.tiff", "32.tiff", "float.tiff", "big-endian.tiff"])
def test_deep_grey_is_scaled_and_not_cut(folder, kind):
    deep = RAMP.astype(np.uint16) * 257
    if kind.startswith("16"):
        Image.fromarray(deep).save(folder / kind)
    elif kind.startswith("32"):
        Image.fromarray(deep.astype(np.int32)).save(folder / kind)
    elif kind.startswith("float"):
        Image.fromarray(deep.astype(np.float32) / 65535).save(folder / kind)
    else:
        image = Image.frombytes("I;16B", (32, 32), deep.astype(">u2").tobytes())
        image.save(folder / kind)
    found = np.asarray(open_image(folder / kind))
    assert found.shape == (32, 32, 3) and np.abs(found.astype(int) - RAMP[..., None]).max() <= 1
    (folder / "a.png").unlink()
    mean = read_images(folder, 8).images.mean().item()
    assert mean == pytest.approx(RAMP.mean() / 255, abs=0.01)


@pytest.mark.parametrize(
    "values", [np.float32([[0, np.nan]]), np.float32([[0, 4000]]), np.int32([[-5, 9]]),
               np.int32([[0, 70_000]])]
)  # fmt: skip
def test_numbers_without_a_known_scale_are_refused_not_cut(folder, values):
    Image.fromarray(values).save(folder / "deep.tiff")
    with pytest.raises(ImageFileError, match="deep.tiff cannot be read.*no known scale"):
        open_image(folder / "deep.tiff")


def test_a_transparent_value_of_deep_grey_becomes_white():
    image = Image.fromarray(np.uint16([[0, 25700]]))
    image.info["transparency"] = 0
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [255, 100]


def test_cmyk_has_the_colours_of_print(folder):
    inks = {(255, 0, 0, 0): (0, 255, 255), (0, 0, 0, 255): (0, 0, 0), (0, 0, 0, 0): (255, 255, 255),
            (0, 255, 255, 0): (255, 0, 0)}  # fmt: skip
    for form in ("JPEG", "TIFF"):
        for ink, colour in inks.items():
            path = folder / f"print.{form.lower()}"
            Image.new("CMYK", (16, 16), ink).save(path, form)
            found = np.array(open_image(path).getpixel((8, 8)))
            assert np.abs(found - colour).max() <= 3, (form, ink, found)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_way_of_holding_a_camera_gives_the_same_picture(folder, form, turn):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, :16, 0], upright[:8, 16:, 1], upright[8:, 16:, 2] = 255, 255, 255
    undo = {1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
            6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}[turn]  # fmt: skip
    held = Image.fromarray(upright)
    held = held.transpose(Image.Transpose[undo]) if undo else held
    exif = Image.Exif()
    exif[0x0112] = turn
    path = folder / f"held.{form.lower()}"
    held.save(path, form, exif=exif)
    for least in (None, 4):  # also where it is reduced while it is decoded
        found = open_image(path, least=least)
        found = np.asarray(found.resize((32, 16), Image.Resampling.BOX)).astype(int)
        assert np.abs(found - upright)[2:6, 2:14].max() < 40
        assert np.abs(found - upright)[10:14, 20:28].max() < 40


def test_a_broken_note_on_orientation_leaves_the_picture_as_stored(folder):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"
    Image.new("RGB", (8, 4)).save(folder / "a.jpg", exif=exif)
    with warnings.catch_warnings(action="ignore"):  # Pillow's own word about it
        assert open_image(folder / "a.jpg").size == (8, 4)


def test_items_draw_and_read_as_those_of_any_task(folder):
    write(folder, *(GOOD | {"texts": [f"x{i}", "y"]} for i in range(6)))
    task = draw_items(read_folder(folder), 3)
    assert len(task.items) == 3 and task.images(16).shape == (1, 3, 16, 16)
    assert all(item.texts[item.correct].startswith("x") for item in task.items)
