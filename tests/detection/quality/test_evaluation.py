"""One evaluation over one rank and over two: every image once, the same mAP everywhere, and the same as one rank's."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from PIL import Image, ImageDraw
from torch import Tensor, nn

from benchmarks.detection import phases as clocks
from benchmarks.detection.found import Detections
from benchmarks.detection.phases import Phases
from benchmarks.detection.quality import coco, panels
from benchmarks.detection.quality.evaluation import Evaluation, average_running_statistics
from benchmarks.ssd.data import Source, eval_batches, unnormalise
from tests import forking
from tests.ssd.coco_folder import Folder, Picture, write
from tests.ssd.ranks import WORLD, joined

STEP = 10  # between the red levels that tell the pictures apart
# images and batch size: shards of 4 and 5, of which one ends at a batch's end where the other goes on; of 3 and 4, of
# which only one has a rest; of one image each, in batches that are never full
CASES = ((9, 4), (7, 3), (2, 8))


def pictures(count: int) -> list[Picture]:
    """Each with one box of its own place, every fifth with none."""
    return [
        Picture(STEP * k, [(2 + k, 4, 20, 15 + k, 7 if k % 2 else 90)] if k % 5 else [], id=100 - k)
        for k in range(1, count + 1)
    ]


def look(images: Tensor) -> Detections:
    """A detector that tells the picture by its colour and then knows, more or less, what is in it."""
    reds = unnormalise(images)[..., 0].mean(axis=(1, 2))
    found: list[tuple[int, int, float, list[float]]] = []
    for position, k in enumerate(np.round(reds / STEP).astype(int).tolist()):
        if k % 4 == 0:
            continue  # nothing found
        x, y, w, h = 2 + k, 4, 20, 15 + k
        wrong = 4 if k % 3 == 0 else 0  # IoU 2/3, not near a threshold
        ltrb = [(x + wrong) / 64, y / 48, (x + wrong + w) / 64, (y + h) / 48]
        found.append((position, 2 if k % 2 else 1, 0.9 - 0.01 * k, ltrb))
    at, labels, scores, boxes = zip(*found, strict=True) if found else ((), (), (), ())
    return Detections(
        torch.tensor(at, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


def evaluation(
    folder: Path, half: str, batch_size: int, rank: int = 0, world: int = 1, *, device: str = "cpu"
) -> Evaluation:
    truth = coco.GroundTruth.load(folder / "annotations" / f"instances_{half}.json")
    source = Source(
        images=folder / half,
        annotations=truth.path,
        image_px=32,
        batch_size=batch_size,
        threads=1,
        device=device,
        shard=rank,
        shards=world,
        skip_empty=False,
    )
    phases = Phases(torch.device(device))
    return Evaluation(eval_batches(source), truth, truth.image_ids, "hotcoco", world, rank, phases)


def counting(seen: list[int]) -> Callable[[Tensor], Detections]:
    """`look`, noting which pictures it was shown."""

    def noted(images: Tensor) -> Detections:
        assert len(images) > 0, "an empty batch would reach the network"
        seen.extend(np.round(unnormalise(images)[..., 0].mean(axis=(1, 2)) / STEP).astype(int).tolist())
        return look(images)

    return noted


# --- one rank ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nine(tmp_path: Path) -> Folder:
    return write(tmp_path, pictures(9), categories=(90, 7), half="val")


@pytest.mark.parametrize("batch_size", [1, 4, 9, 16])
def test_the_batch_size_changes_nothing(nine: Folder, batch_size: int, device: str) -> None:
    seen: list[int] = []
    found = evaluation(nine.path, "val", batch_size, device=device).run(counting(seen))
    assert sorted(seen) == list(range(1, 10))
    assert found == pytest.approx(by_hand(nine), abs=1e-12)
    assert 0.2 < found < 0.8


def by_hand(folder: Folder) -> float:
    """mAP of what `look` finds, by pycocotools, without batches or DALI."""
    truth = coco.GroundTruth.load(folder.annotations)
    rows = []
    for k in (k for k in range(1, 10) if k % 4):
        x = 2 + k + (4 if k % 3 == 0 else 0)
        rows.append([100 - k, x, 4, 20, 15 + k, 0.9 - 0.01 * k, 7 if k % 2 else 90])
    return coco.evaluate(truth, np.array(rows, dtype=float), evaluator="pycocotools", image_ids=truth.image_ids).mAP


def test_again_gives_the_same(nine: Folder, device: str) -> None:
    """A run evaluates several times with one reader."""
    once = evaluation(nine.path, "val", 4, device=device)
    seen: list[int] = []
    assert len({once.run(counting(seen)) for _ in range(3)}) == 1
    assert sorted(seen) == sorted([*range(1, 10)] * 3)


def test_nothing_found_in_any_image(nine: Folder) -> None:
    def blind(images: Tensor) -> Detections:
        none = torch.empty(0)
        return Detections(none.long(), none.reshape(0, 4), none, none.long())

    assert evaluation(nine.path, "val", 4).run(blind) == 0.0


def test_an_image_missing_or_twice_is_an_error(nine: Folder) -> None:
    whole = evaluation(nine.path, "val", 4)
    ids = whole.image_ids
    whole.image_ids = ids[1:]
    with pytest.raises(RuntimeError, match="saw 9 images, 9 of them different; each of 8"):
        whole.run(look)
    whole.image_ids = np.append(ids, 12345)
    with pytest.raises(RuntimeError, match="each of 10 must come exactly once"):
        whole.run(look)


def test_panels_show_the_first_images(nine: Folder) -> None:
    whole = evaluation(nine.path, "val", 4)
    assert panels.draw(whole, nine.images, 3) == [], "before any evaluation"
    whole.run(look)
    drawn = panels.draw(whole, nine.images, 3)
    assert [panel.shape for panel in drawn] == [(240, 320, 3)] * 3
    found, nothing = (panels.draw(whole, nine.images, 4)[position] for position in (0, 3))
    orange = np.array([0xE6, 0x9F, 0x00])  # the colour of category 7, which only `look` draws
    assert (found == orange).all(axis=2).any()
    assert not (nothing == orange).all(axis=2).any()
    # of a run that has diverged: a bare RuntimeWarning of numpy's was all that its screen said
    whole.first_rows = np.array([[whole.first_ids[0], -math.inf, 1e308, math.inf, 1e308, 0.9, 7]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not (panels.draw(whole, nine.images, 1)[0] == orange).all(axis=2).any()
        panels.mark(Image.new("RGB", (9, 9)), [*np.array([-math.inf, 1e308, math.inf, 1e308])], "", 0)


def test_of_a_strip_a_panel_is_drawn_too(tmp_path: Path) -> None:
    """1 x 1000 px come to a third of a pixel in a panel: no picture of the run was drawn, once its time was taken."""
    strip = write(tmp_path, [Picture(STEP, [(1, 0, 500, 1, 7)], width=1000, height=1)], categories=(90, 7), half="val")
    whole = evaluation(strip.path, "val", 1)
    whole.run(look)
    assert [panel.shape for panel in panels.draw(whole, strip.images, 1)] == [(1, 320, 3)]


def test_a_box_far_beyond_the_picture_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that had diverged: Pillow took minutes for each, by the box's extent, and the run's end waited for them."""
    rectangle, most = ImageDraw.ImageDraw.rectangle, 4 * 100

    def near(canvas: ImageDraw.ImageDraw, corners: tuple[float, ...], **options: Any) -> None:
        assert all(-most <= each <= most for each in corners), corners
        rectangle(canvas, corners, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", near)
    picture = Image.new("RGB", (100, 60))
    inf, nan = math.inf, math.nan
    for nowhere in (
        (20, 10, inf, 5),
        (-inf, 0, inf, 9),
        (-inf, 0, 9, 9),
        (0, 0, nan, 9),
        (nan, 0, 9, 9),
        (101, 0, 1e9, 9),
    ):
        panels.mark(picture, nowhere, "", 0)
        assert picture.getbbox() is None, f"nothing of {nowhere} is in the picture"
    panels.mark(picture, (-1e9, -1e9, 2e9, 2e9), "", 0)
    assert picture.getbbox() == (2, 1, 3, 2), "the text's ground alone: each of its sides is outside"
    panels.mark(picture, (-1e9, 10, 1e9 + 50, 1e9), "", 0)
    assert picture.getpixel((49, 40)) == picture.getpixel((20, 10)) == (0xE6, 0x9F, 0x00), "the sides that are in it"
    assert picture.getpixel((20, 40)) == picture.getpixel((0, 40)) == picture.getpixel((20, 59)) == (0, 0, 0)


# --- where its time goes -----------------------------------------------------------------------------------------------


class FakeGpu:
    """A device that does what it was asked for in its order, on a clock of its own, and a host that is ahead of it."""

    def __init__(self) -> None:
        self.host_s = self.device_s = 0.0
        self.ranges: list[str] = []  # NVTX's that have begun

    def asked(self, seconds: float = 0.0, *, not_before_s: float = 0.0) -> float:
        """When the device is through with it."""
        self.device_s = max(self.device_s, self.host_s, not_before_s) + seconds
        return self.device_s

    def waited_for(self) -> None:
        self.host_s = max(self.host_s, self.device_s)

    def torch(self) -> Any:
        gpu = self

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing
                self.at_s: float | None = None

            def record(self) -> None:
                self.at_s = gpu.asked()

            def synchronize(self) -> None:
                gpu.waited_for()

            def elapsed_time(self, other: Event) -> float:
                assert self.at_s is not None and other.at_s is not None
                assert other.at_s <= gpu.host_s, "an event that the device is not past cannot be read"
                return 1e3 * (other.at_s - self.at_s)

        def begun(name: str) -> str:
            self.ranges.append(name)
            return name

        nvtx = SimpleNamespace(range_start=begun, range_end=self.ranges.remove)
        return SimpleNamespace(cuda=SimpleNamespace(Event=Event, nvtx=nvtx))


def test_on_a_gpu_the_wait_for_decoders_is_starvation_and_no_forward_pass(
    nine: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host does not wait for a batch when it takes it, only when it reads something of it."""
    gpu, whole = FakeGpu(), evaluation(nine.path, "val", 3)
    monkeypatch.setattr(clocks, "torch", gpu.torch())
    whole.phases = Phases(torch.device("cuda:0"))
    batches = list(whole.batches)

    class Ids:
        """Of a batch on the device: to read them is to wait for it."""

        def __init__(self, ids: Tensor) -> None:
            self.ids = ids

        def flatten(self) -> Ids:
            return self

        def cpu(self) -> Tensor:
            gpu.waited_for()
            return self.ids.flatten()

    class Decoded:
        samples = 9

        def __iter__(self) -> Iterator[dict[str, Any]]:
            for batch in batches:
                gpu.asked(not_before_s=gpu.host_s + 5)  # the stream waits for the decoders, the host goes on
                yield {"images": batch["images"], "image_ids": Ids(batch["image_ids"])}

    def detect(images: Tensor) -> Detections:
        gpu.asked(2)
        gpu.waited_for()  # what it found is brought to the host
        return look(images)

    whole.batches = Decoded()
    matched = coco.Matching.add

    def add(*given: Any) -> None:
        gpu.host_s += 1
        matched(*given)

    monkeypatch.setattr(coco.Matching, "add", add)
    whole.run(detect)
    assert len(batches) == 3
    assert gpu.ranges == [], "what comes between two evaluations is in no phase of one"
    assert whole.phase_seconds == {
        "evaluation_data_starved": 3 * 5,
        "evaluation_forward": 3 * 2,
        "evaluation_metric": 3 * 1,
    }


def test_the_parts_of_an_evaluation_are_the_whole_of_it(nine: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor, by its clock, which here goes on by a second with each look."""
    looks = iter(range(1000))
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: float(next(looks)))
    whole = evaluation(nine.path, "val", 3)
    for _ in range(2):
        before = next(looks)
        whole.run(look)
        after = next(looks)
        assert list(whole.phase_seconds) == ["evaluation_data_starved", "evaluation_forward", "evaluation_metric"]
        # 3 batches, each with a wait, a forward pass and its matching; the wait that finds no other; the sum
        assert list(whole.phase_seconds.values()) == [3 + 1, 3, 3 + 1]
        assert sum(whole.phase_seconds.values()) == after - before - 2, "but for the first look and the last"


# --- two ranks ---------------------------------------------------------------------------------------------------------


def as_rank(rank: int, folder: Path, device: str) -> None:
    """One of WORLD processes: evaluates each case twice, averages statistics, and writes down what it got."""
    device = joined(rank, folder, device)
    try:
        results = {}
        for count, batch_size in CASES:
            mine = evaluation(folder, f"val{count}", batch_size, rank, WORLD, device=device)
            seen: list[int] = []
            results[str(count)] = {"mAP": [mine.run(counting(seen)), mine.run(counting([]))], "seen": seen}
        statistics = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).to(device)
        norm = statistics[1]
        norm.running_mean.fill_(rank)  # type: ignore[union-attr, operator]
        norm.running_var.fill_(2 + 4 * rank)  # type: ignore[union-attr, operator]
        average_running_statistics(statistics, WORLD)
        results["statistics"] = {"mean": norm.running_mean.tolist(), "var": norm.running_var.tolist()}  # type: ignore[union-attr, operator]
        (folder / f"rank{rank}.json").write_text(json.dumps(results))
    finally:
        dist.destroy_process_group()


@pytest.mark.long
def test_two_ranks_agree_with_one(tmp_path: Path, device: str) -> None:
    for count, _ in CASES:
        write(tmp_path, pictures(count), categories=(90, 7), half=f"val{count}")
    torch.multiprocessing.start_processes(as_rank, args=(tmp_path, device), nprocs=WORLD, start_method=forking.METHOD)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(WORLD)]
    for count, batch_size in CASES:
        alone = evaluation(tmp_path, f"val{count}", batch_size, device=device).run(look)
        found = [rank[str(count)] for rank in ranks]
        assert sorted(found[0]["seen"] + found[1]["seen"]) == list(range(1, count + 1)), "each image once"
        assert [rank["mAP"] for rank in found] == [[alone, alone]] * WORLD
    assert ranks[0]["statistics"] == ranks[1]["statistics"] == {"mean": [0.5, 0.5], "var": [4.0, 4.0]}
