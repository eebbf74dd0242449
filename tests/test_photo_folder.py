"""A folder of photos: killed at any moment, it goes on and ends as if nothing had happened."""

import errno
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
import torch
from examples import noise
from killed import killed_and_resumed
from networks import a_pipeline

from utils import credits, images
from utils.credits import CREDITS, city_of, credit_of
from utils.engine.run import JOURNAL as RESULTS
from utils.files import PROJECT
from utils.images import read_image, read_map, read_photo, save_image
from utils.labels import label_ids_to_colors
from utils.photo_folder import FOLDERS, PAGE, run_folder
from utils.pipeline import Pipeline, agreement
from utils.segmentation import SegmentationNet

SIZE = (64, 32)
NAMES = ("a.png", "b & <c> #1.png", "c.jpg", "c.png", "d.webp")


@pytest.fixture
def photos(tmp_path):
    """Five photos, larger than the generator's, two of them with one stem."""
    for seed, name in enumerate(NAMES):
        save_image(noise(3, 50, 90, seed=seed), tmp_path / "photos" / name)
    return tmp_path / "photos"


def contents(folder):
    """Everything in the output folder: path -> bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def lines(folder):
    return [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]


def test_what_is_saved(pipeline, photos, tmp_path):
    report = run_folder(pipeline, photos, tmp_path / "out", batch_size=2)
    assert report.new == len(NAMES) and set(report.records) == set(NAMES)
    assert not report.unreadable
    names = [record.name for record in report.records.values()]
    assert names == ["a", "b & <c> #1", "c", "c.png", "d"]
    expected = {f"{folder}/{name}.png" for folder in FOLDERS for name in names}
    assert set(contents(tmp_path / "out")) == expected | {PAGE, RESULTS}
    for photo, record in report.records.items():
        result = pipeline.run(read_photo(photos / photo, SIZE))
        stages = dict(zip(FOLDERS, record.files(tmp_path / "out")))
        assert torch.equal(read_image(stages["photos"]), result.image_u8)
        assert torch.equal(read_map(stages["label_ids"]), result.label_ids)
        colors = label_ids_to_colors(result.label_ids)
        assert torch.equal(read_image(stages["maps"]), colors)
        # Alone and in a batch, a sum may round differently, and the other stages follow.
        generated_u8 = read_image(stages["generated"])
        assert (generated_u8.int() - result.generated_u8.int()).abs().max() <= 1
        second = read_map(stages["second_label_ids"])
        assert agreement(second, pipeline.segmenter.predict(generated_u8)) > 0.99
        assert torch.equal(read_image(stages["second_maps"]), label_ids_to_colors(second))
        share = agreement(read_map(stages["label_ids"]), second)
        assert record.agreement == pytest.approx(share.item(), abs=1e-4)


def test_a_second_call_does_nothing_twice(pipeline, photos, tmp_path):
    run_folder(pipeline, photos, tmp_path / "out")
    pictures = list((tmp_path / "out").rglob("*.png"))
    before = [path.stat().st_mtime_ns for path in pictures]
    report = run_folder(pipeline, photos, tmp_path / "out")
    assert report.new == 0 and len(report.records) == len(NAMES)
    assert [path.stat().st_mtime_ns for path in pictures] == before
    assert "5 photos done (0 now)" in str(report)


@pytest.mark.parametrize("after", [0, 2])
def test_interrupted_and_resumed_equals_uninterrupted(
    pipeline, photos, tmp_path, monkeypatch, after
):
    run_folder(pipeline, photos, tmp_path / "whole", batch_size=2)
    calls = []

    def run(image_u8):
        calls.append(image_u8)
        if len(calls) > after:
            raise KeyboardInterrupt
        return Pipeline.run(pipeline, image_u8)

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "run", run)
        run_folder(pipeline, photos, out, batch_size=2)
    assert len(lines(out)) == 1 + 2 * after
    assert f"{2 * after} photos" in (out / PAGE).read_text(), "a page of what is there"
    # What a kill leaves: a line cut short, half a picture, a picture without a line.
    with open(out / RESULTS, "a") as file:
        file.write('{"photo": "d.webp", "identi')
    (out / "maps" / ".d.png.abc.part").write_bytes(b"half")
    (out / ".index.html.abc.part").write_bytes(b"half")
    (out / "photos" / "d.png").write_bytes(b"of a batch that was not finished")
    report = run_folder(pipeline, photos, out, batch_size=2)
    assert report.new == len(NAMES) - 2 * after
    assert contents(out) == contents(tmp_path / "whole")


def run_in(folder):
    torch.set_num_threads(1)
    run_folder(a_pipeline(), folder.parent / "photos", folder, batch_size=2)


def test_killed_at_random_moments_it_ends_the_same(photos, tmp_path):
    for number in range(12):
        (photos / f"more{number}.png").write_bytes((photos / "a.png").read_bytes())
    whole, others = killed_and_resumed(run_in, tmp_path)
    expected = contents(whole)
    assert len(expected) == 17 * len(FOLDERS) + 2
    for folder in others:
        assert contents(folder) == expected


def test_what_changed_or_is_missing_is_done_again(pipeline, photos, tmp_path):
    report = run_folder(pipeline, photos, tmp_path / "out")
    (tmp_path / "out" / "generated" / "a.png").unlink()
    save_image(torch.zeros(3, 40, 80, dtype=torch.uint8), photos / "c.png")
    (photos / "d.webp").unlink()
    again = run_folder(pipeline, photos, tmp_path / "out")
    assert again.new == 2 and set(again.records) == set(NAMES), "no result is thrown away"
    assert again.records["c.png"].name == report.records["c.png"].name
    assert int(read_image(tmp_path / "out" / "photos" / "c.png.png").max()) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_unicode(pipeline, photos, tmp_path):
    name = os.fsdecode(b"stra\xdfe.png")  # from an archive of the nineties
    (photos / "c.png").rename(photos / name)
    for new in (len(NAMES), 0):
        report = run_folder(pipeline, photos, tmp_path / "out")
        assert report.new == new and name in report.records
    assert 'src="photos/stra%DFe.png"' in (tmp_path / "out" / PAGE).read_text()


def test_other_networks_or_settings_are_noticed(pipeline, photos, tmp_path):
    run_folder(pipeline, photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    other = Pipeline(pipeline.segmenter, pipeline.generator, precision="bf16")
    with pytest.raises(ValueError, match="made with precision exact; this run has precision bf16"):
        run_folder(other, photos, tmp_path / "out")
    torch.manual_seed(1)
    other = Pipeline(SegmentationNet("resnet18"), pipeline.generator)
    with pytest.raises(ValueError, match="out holds .* made with segmenter [0-9a-f]{16}; this run"):
        run_folder(other, photos, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_unreadable_files_are_named_and_skipped(pipeline, photos, tmp_path):
    (photos / "b & <c> #1.png").write_bytes((photos / "a.png").read_bytes()[:500])
    (photos / "0.jpg").write_text("<html>not found</html>")
    (photos / "e.HEIC").write_bytes(b"of a telephone")
    (photos / "notes.txt").write_text("no photo")
    report = run_folder(pipeline, photos, tmp_path / "out", batch_size=2)
    assert set(report.records) == {"a.png", "c.jpg", "c.png", "d.webp"}
    assert sorted(report.unreadable) == ["0.jpg", "b & <c> #1.png", "e.HEIC"]
    assert "e.HEIC is no JPEG, PNG or WebP file: save it as" in report.unreadable["e.HEIC"]
    assert "b & <c> #1.png can't be read as a picture" in report.unreadable["b & <c> #1.png"]
    assert "4 photos done" in str(report) and "3 skipped" in str(report)
    assert "b &amp; &lt;c&gt; #1.png can&#x27;t be read" in (tmp_path / "out" / PAGE).read_text()
    # It may be repaired while the others are kept.
    (photos / "0.jpg").write_bytes((photos / "c.jpg").read_bytes())
    assert run_folder(pipeline, photos, tmp_path / "out").new == 1


def test_results_that_cannot_be_written_cost_only_their_photo(
    pipeline, photos, tmp_path, monkeypatch
):
    def save(image_u8, path):
        if path.stem == "c":  # a letter that this disk does not know, say
            raise OSError(errno.EILSEQ, "Illegal byte sequence", str(path))
        return save_image(image_u8, path)

    with monkeypatch.context() as patch:
        patch.setattr(images, "save_image", save)
        for new in (4, 0):
            report = run_folder(pipeline, photos, tmp_path / "out", batch_size=2)
            assert report.new == new and list(report.unreadable) == ["c.jpg"]
        assert "c.jpg was skipped: its results can't be written (" in report.unreadable["c.jpg"]
    assert len(lines(tmp_path / "out")) == 1 + 4
    report = run_folder(pipeline, photos, tmp_path / "out")
    assert report.new == 1 and not report.unreadable


def test_names_as_long_as_can_be(pipeline, photos, tmp_path):
    names = ["\u8857" * 82 + ".jpg", "n" * 251 + ".jpg", "n" * 251 + ".png"]  # up to 255 bytes
    for name in names:
        shutil.copy(photos / "a.png", photos / name)
    for new in (len(NAMES) + 3, 0):
        report = run_folder(pipeline, photos, tmp_path / "out")
        assert report.new == new and set(names) <= set(report.records) and not report.unreadable
    assert report.records[names[1]].name == "n" * 251
    assert re.fullmatch("n{40} [0-9a-f]{8}", report.records[names[2]].name)


def test_nothing_can_be_read(pipeline, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    report = run_folder(pipeline, tmp_path / "photos", tmp_path / "out")
    assert (report.new, len(report.unreadable)) == (0, 1)
    assert "0 photos; none is done yet" in report.page.read_text()


def test_a_full_disk_loses_nothing(pipeline, photos, tmp_path, monkeypatch):
    saved = []

    def save(image_u8, path):
        saved.append(path)
        if len(saved) > 17:  # in the second batch
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_image(image_u8, path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="MB are free.* make room"):
        patch.setattr(images, "save_image", save)
        run_folder(pipeline, photos, tmp_path / "out", batch_size=2)
    assert len(lines(tmp_path / "out")) == 1 + 2
    assert run_folder(pipeline, photos, tmp_path / "out").new == 3


def test_a_folder_that_cannot_be_written_to_ends_the_run(pipeline, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def save(image_u8, path):
        shutil.rmtree(out / "maps", ignore_errors=True)
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(images, "save_image", save)
        with pytest.raises(OSError, match="out/maps can't be written to .* choose another folder"):
            run_folder(pipeline, photos, out)
    (out / "maps").touch()
    with pytest.raises(OSError, match="out can't be written to .* choose another folder"):
        run_folder(pipeline, photos, out)


def test_places_that_do_not_work(pipeline, photos, tmp_path):
    with pytest.raises(ValueError, match="photos lie in .*, the folder to write to"):
        run_folder(pipeline, photos, tmp_path)
    with pytest.raises(ValueError, match="photos lie in"):
        run_folder(pipeline, photos, photos)
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        run_folder(pipeline, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run_folder(pipeline, photos / "a.png", photos / "results").new == 1, "a folder inside"


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.text += data


def test_page(pipeline, photos, tmp_path):
    report = run_folder(pipeline, photos, tmp_path / "out")
    page, text = _Links(), report.page.read_text(encoding="utf-8")
    page.feed(text)
    assert len(page.images) == 4 * len(NAMES)
    assert {image["loading"] for image in page.images} == {"lazy"}
    for image in page.images:
        assert re.match(r"(photos|maps|generated|second_maps)/", image["src"]), "relative"
        assert (report.page.parent / unquote(image["src"])).is_file()
    for photo, record in report.records.items():
        assert photo in page.text and f"{record.agreement:.1%}" in page.text
    assert str(tmp_path) not in text, "the folder can be moved"
    assert "<small>" not in text and "licence" not in text, "the photos are the reader's own"
    assert {record.city for record in report.records.values()} == {None}


# ----------------------------------------------------------------------------- whose photos


@pytest.fixture
def streets(tmp_path):
    """A photo from California, one from Karlsruhe, both copied, and a picture of our own."""
    bundled = [PROJECT / "data" / "streets" / f"{x}/photos" for x in ("california", "karlsruhe")]
    if not all(folder.is_dir() for folder in bundled):
        pytest.skip("needs data/streets")
    (tmp_path / "streets").mkdir()
    copies = [shutil.copy(min(folder.glob("*.jpg")), tmp_path / "streets") for folder in bundled]
    save_image(torch.zeros(3, 40, 80, dtype=torch.uint8), tmp_path / "streets" / "own.png")
    return [tmp_path / "streets" / name for name in (*copies, "own.png")]


def test_who_is_credited(streets):
    california, karlsruhe, own = streets
    assert credit_of(california) == CREDITS["California"]
    assert str(credit_of(california)).startswith(
        "Drive.ai Sample Dataset (drive.ai: Brody Huval, Chih Hu, Rahul Patel), CC BY 4.0 "
        "(https://creativecommons.org/licenses/by/4.0/); reduced in size"
    )
    assert credit_of(karlsruhe) == CREDITS["Karlsruhe"] and credit_of(own) is None
    changed = california.read_bytes()[:-1] + b"x"
    california.write_bytes(changed)
    assert credit_of(california) is None, "the same name, but another photo"
    renamed = karlsruhe.rename(karlsruhe.with_name("my street.jpg"))
    assert city_of(renamed) == "Karlsruhe", "the same photo, by another name"


def test_every_bundled_photo_has_a_credit():
    photos = list((PROJECT / "data" / "streets").glob("*/photos/*"))
    assert not [path for path in photos if credit_of(path) is None]


def test_page_with_credits(pipeline, streets, tmp_path):
    report = run_folder(pipeline, streets[0].parent, tmp_path / "out")
    text = report.page.read_text(encoding="utf-8")
    page = _Links()
    page.feed(text)
    assert text.count("<small>") == 2, "the third is not the project's"
    for credit in CREDITS.values():
        assert str(credit).replace(f" ({credit.licence_url})", "") in page.text
        assert f'<a href="{credit.licence_url}">{credit.licence}</a>' in text
    assert f'<a href="{CREDITS["Karlsruhe"].source_url}">KITTI</a>' in text
    foot = page.text.split("own.png")[1]
    assert "made from a photo under CC BY-NC-SA 3.0 are under the same licence" in foot
    assert "CC BY 4.0 are under" not in foot
    # Results stay when the photos go, and so do their credits.
    for path in streets[:2]:
        path.unlink()
    run_folder(pipeline, streets[0].parent, tmp_path / "out")
    assert report.page.read_text(encoding="utf-8") == text


def test_page_says_what_the_networks_may_be_used_for(pipeline, streets, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.generator, "licence", "CC BY-NC-SA 4.0")
    text = run_folder(pipeline, streets[2], tmp_path / "out").page.read_text(encoding="utf-8")
    assert "Made by networks under CC BY-NC-SA 4.0: not for commercial use." in text


def test_credits_are_escaped(pipeline, streets, tmp_path, monkeypatch):
    credit = credits.Credit("A & <b>", 'C "D"', "CC <BY>", 'https://example.org/?a&"b"')
    monkeypatch.setitem(CREDITS, "California", credit)
    report = run_folder(pipeline, streets[0], tmp_path / "out")
    text = report.page.read_text(encoding="utf-8")
    assert "<small>A &amp; &lt;b&gt; (C &quot;D&quot;), <a href=" in text
    assert '<a href="https://example.org/?a&amp;&quot;b&quot;">CC &lt;BY&gt;</a>' in text
