"""`kennel data`: draw or fetch a data set, look it over, shrink it, put it into the bucket."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.aws import announce
from cli.console import AsJson, console, progress_bar, show
from cli.data import check as data_check
from cli.data import shrink as data_shrink
from cli.data.dataset import find_data_set, named, print_notes, read_data_set
from cli.data.push import data_set_name, data_set_prefix, push_data_set, require_keys
from cli.errors import NotReadyError, UsageError
from cli.help import Sections

app = typer.Typer(cls=Sections, help="Draw, pull, check, shrink and push data sets.", no_args_is_help=True)

SAMPLE_DIR = Path("data/sample")
BREEDS_URL = "https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip"

_Directory = Annotated[Path, typer.Argument(help="A folder-per-class data set.")]


@app.command()
def sample(
    directory: Annotated[Path, typer.Argument(help="Where to draw it.")] = SAMPLE_DIR,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other images of the same breeds.")] = 1,
    breeds: Annotated[int, typer.Option(min=2, max=16, help="How many breeds, of the 16 there are.")] = 12,
    train: Annotated[int, typer.Option(min=1, help="Images per breed to train on.")] = 120,
    valid: Annotated[int, typer.Option(min=1, help="Images per breed to choose the best weights by.")] = 15,
    test: Annotated[int, typer.Option(min=1, help="Images per breed to measure with.")] = 15,
) -> None:
    """Draw a small data set of dogs whose images differ as breeds do."""
    draw_sample(directory, seed=seed, breeds=breeds, per_class=(train, valid, test))


def draw_sample(directory: Path, *, seed: int, breeds: int, per_class: tuple[int, int, int]) -> None:
    """Draw the sample data set, or keep the very same one; a NotReadyError where it cannot be drawn."""
    import sample_data  # numpy and Pillow: not needed by the other commands

    total = breeds * sum(per_class)
    try:
        with progress_bar("Drawing images", total) as report:
            drawn = sample_data.draw_data_set(directory, breeds=breeds, per_class=per_class, seed=seed, report=report)
    except sample_data.DrawingError as error:
        raise NotReadyError(str(error)) from error
    what = f"{total} images of {breeds} breeds"
    console.print(f"Drew {what} in {directory}." if drawn else f"{directory} holds these {what} already.")


@app.command()
def pull(
    directory: Annotated[
        Path | None, typer.Argument(help="Where to put it (default: data/breeds, or data/ and the set's name).")
    ] = None,
    published: Annotated[
        str | None, typer.Option("--set", help="A published set: pets, flowers, food or eurosat.", metavar="NAME")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A zip archive (default: 8,351 photographs of dogs, 1.1 GB).")] = None,
    sha256: Annotated[str | None, typer.Option(help="What the archive's checksum must be.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download and check a data set; goes on after an interruption."""
    from cli.data import pull as data_pull  # requests takes a tenth of a second to import

    if published and (url or sha256):
        raise UsageError("--set says where the set is, and what its checksums are: leave out --url and --sha256.")
    directory = directory or Path("data", published or "breeds")
    if published:
        data_pull.pull_set(directory, published)
    else:
        data_pull.pull(directory, url or BREEDS_URL, sha256)
    data_check.check_and_print(find_data_set(directory))


@app.command("check")
def check_command(
    directory: _Directory = SAMPLE_DIR,
    as_json: AsJson = False,
) -> None:
    """Find what makes a data set unusable (exit code 3), or worse."""
    data_check.check_and_print(find_data_set(directory))


@app.command("shrink")
def shrink_command(
    directory: _Directory,
    destination: Annotated[Path | None, typer.Argument(help="Where to put the copy (default: DIR-<side>).")] = None,
    side: Annotated[int, typer.Option(min=16, max=4096, help="The most pixels of an image's shorter side.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Make a copy of a data set in the size that a network needs."""
    folder, original = read_data_set(directory), named(directory)
    copy = destination or original.with_name(f"{original.name}-{side}")
    with progress_bar("Shrinking images", len(folder.images)) as report:
        done = data_shrink.shrink_data_set(folder, copy, side=side, report=report)
    print_notes(folder)
    sizes = f"{copy}: {done.bytes_before / 1e6:,.1f} MB became {done.bytes_after / 1e6:,.1f} MB."
    left_out = (f"warning: left out {name}: {reason}" for name, reason in done.unreadable.items())
    show({"copy": copy, **asdict(done)}, sizes, *left_out)


@app.command()
def push(
    context: typer.Context,
    directory: _Directory = SAMPLE_DIR,
    name: Annotated[str | None, typer.Option(help="Its name in the bucket (default: the folder's).")] = None,
    check: Annotated[bool, typer.Option(help="Decode every image first.")] = True,
    as_json: AsJson = False,
) -> None:
    """Put a data set into the bucket, only what has changed."""
    chosen = data_set_name(directory, name)
    folder = read_data_set(directory)
    require_keys(data_set_prefix(chosen), (image.key for image in folder.images))
    if check:
        data_check.check_and_print(folder)
    else:
        print_notes(folder)
    announce(context.obj)
    result = push_data_set(context.obj, folder, chosen)
    counts = f"{result.uploaded} uploaded, {result.unchanged} unchanged, {result.removed} removed"
    show({"name": chosen, **asdict(result)}, f"Pushed as {chosen!r}: {counts}.")
