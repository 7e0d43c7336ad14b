"""The verbs that put a trained model to use: detect, export, inference."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import exit_codes
from harness.cli import environment, outputs, screen

if TYPE_CHECKING:
    from harness.contract import Detector

TRAINED = "A checkpoint, or the folder that --checkpoint-dir named: then its best."
DEVICE = (
    "As run.device in a configuration: cpu, cuda, xpu, musa, hpu, npu, or accelerator for whichever is here.  [default: an "
    "accelerator, else the processor]"
)
PRECISION = "fp32, bf16 or fp16.  [default: the one that the checkpoint was evaluated in]"


class Scenario(enum.StrEnum):
    """Of MLPerf Inference."""

    SINGLE_STREAM = "single-stream"
    OFFLINE = "offline"


class Beginning(enum.StrEnum):
    """What a query begins with."""

    PIXELS = "pixels"
    JPEG = "jpeg"


class Precision(enum.StrEnum):
    """A number format."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


def register(app: typer.Typer) -> None:
    app.command()(detect)
    app.command()(export)
    app.command()(inference)


def detect(
    checkpoint: Annotated[Path, typer.Argument(help=TRAINED, metavar="CHECKPOINT", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Pictures, and folders of them.", metavar="IMAGE...")],
    *,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Scores below it are left out.")] = 0.3,
    category: Annotated[
        list[str] | None, typer.Option(help="Only these, by name; again for more.  [default: all]", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="All of it in COCO's results form, with the files' names.", metavar="FILE.json")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="Pictures with the boxes drawn in.", metavar="DIR")] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="File in COCO's form that the JSON's ids are taken from.", metavar="FILE")
    ] = None,
    as_stored: Annotated[
        bool,
        typer.Option("--as-stored", help="Take pixels as they lie, as an evaluation does: not turned by the EXIF tag."),
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 8,
    precision: Annotated[Precision | None, typer.Option(help=PRECISION, show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE, show_default=False)] = None,
) -> None:
    """What a trained model finds in pictures: names, scores and boxes, in px of the picture.

    A file that is no picture is a line on stderr, and the others go on. Without --annotations an id in the JSON is the number
    that a file is called, where each is called one of its own; else 1, 2, 3. Folders inside a folder are not looked into. Exit
    codes: 0 all were read, 1 some were not, 2 usage, 6 no such device, too little memory or nothing more could be written, 130
    Ctrl-C; after the latter, and without memory, there is no JSON.
    """
    import warnings
    from dataclasses import replace
    from json import dumps

    from harness import whole
    from harness.execution.trained import detecting, detectors
    from harness.results.table import one_line, printable

    environment.must_be_in_a_folder()
    model = detectors.Model.trained(checkpoint)
    meant, complaints, notes = detecting.files(images)
    read = [each for each in (model.path, annotations, *meant) if each is not None]
    outputs.file("--json", json, ".json", read, detecting.are_results)
    if pictures is not None:
        outputs.folder("--pictures", pictures)
    here, *_ = detectors.device(device)
    detector = model.open(here, precision=precision or "")
    wanted = _categories(detector, category)
    ids = detecting.image_ids(meant) if annotations is None else detecting.listed_ids(meant, annotations)
    told = detecting.told_names(meant)
    for text in (*complaints, *notes):
        _complain(one_line(text))
    bad, good, rows, unwritten = len(complaints), 0, [], 0
    sys.stdout.write(printable(f"{model.told}\n\n"))
    sys.stdout.write(f"{detecting.HEADINGS}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders, about pictures
        for each in detecting.look(
            detector, meant, ids, batch=batch, here=here, upright=not as_stored, threshold=threshold
        ):
            if each.fault:
                bad += 1
                _complain(one_line(f"{each.file}: {each.fault}"))
                continue
            shown = replace(each, found=[one for one in each.found if one.category_id in wanted])
            good += 1
            rows += detecting.results([shown], told)
            sys.stdout.write("\n".join(map(one_line, detecting.lines(shown))) + "\n")
            if pictures is not None:
                try:
                    detecting.save_picture(detector, shown, pictures, upright=not as_stored)
                except (OSError, ValueError, MemoryError) as error:  # a full disk, a file that is no longer there
                    unwritten += 1
                    _complain(one_line(f"{each.file}: not drawn: {error}"))
    if json is not None:
        with whole.replacing(json) as file:
            file.write(f"{dumps(rows, allow_nan=False)}\n".encode())
    if bad:
        _complain(f"{bad} of {good + bad} could not be read" + "; the others were" * (good > 0))
    if unwritten:
        raise typer.Exit(exit_codes.NOT_SUITABLE)
    raise typer.Exit(exit_codes.EPOCHS_SPENT if bad else 0)


def export(
    checkpoint: Annotated[Path, typer.Argument(help=TRAINED, metavar="CHECKPOINT", show_default=False)],
    out: Annotated[Path, typer.Argument(help="File to write.", metavar="OUT.onnx", show_default=False)],
    check: Annotated[
        list[Path] | None,
        typer.Option(
            help="A picture to check it with; again for more.  [default: four drawn ones]", show_default=False
        ),
    ] = None,
) -> None:
    """A trained model as an ONNX file, from pixels to detections: decoding of boxes and suppression are in the graph.

    ONNX Runtime runs it on pictures first, and it is kept if it finds what the model finds. The file says how a picture becomes
    pixels, and the categories' names. Exit codes: 0 written, 2 usage, 5 it differs, 6 a package of the extra `export` is
    missing.
    """
    from harness.execution.trained import exporting
    from harness.execution.trained.detectors import Model
    from harness.results.table import printable

    environment.must_be_in_a_folder()
    model = Model.trained(checkpoint)
    read = [each for each in (model.path, *(check or ())) if each is not None]
    outputs.file("OUT", out, ".onnx", read, exporting.is_exported)
    try:
        found = exporting.export(model, out, check or ())
    except exporting.Differs as error:
        _complain(f"error: {error}; nothing was written")
        raise typer.Exit(exit_codes.BROKEN) from error
    sys.stdout.write(printable(f"{model.told}\n\ninput    {found.inputs}\n"))
    sys.stdout.write(f"outputs  {', '.join(exporting.OUTPUTS)}\n")
    for key, value in found.metadata.items():
        sys.stdout.write(printable(f"{key}: {value if len(value) < 400 else value[:400] + '...'}\n"))
    sys.stdout.write("\n" + "\n".join(exporting.lines(found)) + "\n")
    sys.stdout.write(printable(f"wrote {found.path}\n"))


def inference(
    model: Annotated[
        str,
        typer.Argument(
            help=f"{TRAINED} Or a configuration: an untrained network.", metavar="CHECKPOINT", show_default=False
        ),
    ],
    *,
    scenario: Annotated[
        list[Scenario] | None,
        typer.Option(
            help="One picture after the other, or all that there are in batches; again for both.  [default: both]",
            show_default=False,
        ),
    ] = None,
    begin: Annotated[
        list[Beginning] | None,
        typer.Option(
            help="Pixels at the network's size, or a JPEG (what --images has) to decode.  [default: both]",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Number format; repeatable.  [default: fp32 and bf16]", show_default=False),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="With torch.compile too, after without.")] = False,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures at once, offline.  [default: the fastest is sought]", show_default=False),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds of each measurement, at least; MLPerf: 60.")
    ] = 4,
    queries: Annotated[int, typer.Option(min=1, help="Pictures of single stream, at least; MLPerf: 1024.")] = 100,
    full: Annotated[
        bool, typer.Option("--full", help="As long as MLPerf asks, 60 s and its counts each, however long that takes.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="A folder of pictures.  [default: drawn ones]", metavar="DIR", show_default=False),
    ] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE, show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where inference_N.json goes.  [default: where `run` puts results]", metavar="DIR", show_default=False
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the file's content instead of a table.")] = False,
) -> None:
    """How fast a model finds things in pictures, in the terms of MLPerf Inference: single stream and offline.

    What is measured for less than MLPerf Inference asks is marked "short". Leaves inference_N.json with every sample; Ctrl-C
    too, with what is measured by then. What does not fit into memory is left out, and said. Exit codes: 0 done, 2 usage, 6 no
    such device, nothing fits into memory, or the file could no longer be written, 130 Ctrl-C.
    """
    from json import dumps

    from harness import config_files, names, outside
    from harness.execution.trained import detecting, detectors, inference_report
    from harness.execution.trained import inference as measuring
    from harness.results.table import printable

    environment.must_be_in_a_folder()
    chosen = detectors.Model.named(model)
    folder = out or environment.out_dir(config_files.CHECKOUT) / names.folder(chosen.configuration.name)
    outputs.folder_to_be("--out", folder)
    files: list[Path] = []
    if images is not None:
        files, complaints, _ = detecting.files([images])
        if complaints or not outside.is_folder(images):
            raise ValueError(f"--images {images}: {'; '.join(complaints) or outside.no_folder(images)}")
    here, machine, _ = detectors.device(device)
    wanted = measuring.Wanted(
        scenarios=tuple(map(str, scenario or Scenario)),
        beginnings=tuple(measuring.FILE if each == Beginning.JPEG else measuring.PIXELS for each in begin or Beginning),
        precisions=tuple(map(str, precision or (Precision.FP32, Precision.BF16))),
        compiled=(False, True) if compiled else (False,),
        batch=batch,
        seconds=seconds,
        queries=queries,
        pictures=tuple(files),
        whole=full,
    )
    found = measuring.measure(chosen, here, machine, wanted, lambda what: screen.say_to_a_terminal(f"measuring {what}"))
    text = dumps(inference_report.document(found), indent=1) + "\n"
    path = outputs.figures(folder, names.INFERENCE, text)
    sys.stdout.write(text if json else "\n".join(map(printable, inference_report.lines(found))) + "\n\n")
    if path is not None and not json:
        sys.stdout.write(printable(f"wrote {path}\n"))
    if found.interrupted:
        raise typer.Exit(exit_codes.INTERRUPTED)
    if path is None:
        raise typer.Exit(exit_codes.NOT_SUITABLE)


def _categories(detector: Detector, named: list[str] | None) -> set[int]:
    """Ids of those named; of all where none is. ValueError for a name that the model does not know.

    Two categories of a data set may have one name: then it means both.
    """
    there = detector.categories
    if unknown := [each for each in named or () if each not in there.values()]:
        known = ", ".join(sorted(set(there.values())))
        raise ValueError(f"--category {unknown[0]}: the model does not know it; it knows: {known}")
    return {number for number, name in there.items() if not named or name in named}


def _complain(text: str) -> None:
    from harness.results.table import printable

    sys.stdout.flush()
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()
