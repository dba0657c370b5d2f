"""The model trail of a server, and its models brought here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hansa.errors import RequestRefused, RunError
from hansa.identity import Membership
from hansa.protocol.connection import Connection
from hansa.protocol.messages import BlobRef, ModelFacts, ModelPage
from hansa.remote import asking
from hansa.remote.connecting import connected
from hansa.runs.trail import Trail, not_kept
from hansa.store.files import load_params

if TYPE_CHECKING:
    from hansa.runs.start import Start


def server_trail(connection: Connection, run: str | None = None) -> Trail:
    """Return the trail of all runs at a server, or of one.

    Raises:
      RequestRefused: the member may not look.
      ServerError: the server cannot be reached.
    """
    which = "" if run is None else f"&run={quote(run, safe='')}"
    found = asking.pages(connection, "/v1/models", kind=ModelPage, more=which)
    return Trail([model for page in found for model in page.models])


def fetch_model(connection: Connection, model: ModelFacts, target: Path) -> None:
    """Download a model's tensors, checked against its digest.

    Raises:
      RunError: model-missing, it was not kept.
      ServerError: the server cannot be reached.
    """
    from hansa.protocol.transfer import download

    if not model.kept:
        raise not_kept(model)
    try:
        download(connection, BlobRef(digest=model.digest, size=model.size), target)
    except RequestRefused as refused:
        if refused.status != 404:
            raise
        raise not_kept(model) from None  # a newer one has come meanwhile


def start_at(membership: Membership, text: str, runs: Path) -> Start:
    """Return the model that a run at a federation shall start from.

    Args:
      membership: of the federation.
      text: path of a file, or RUN[:ROUND] at the server; a run with a slash is a folder here.
      runs: folder of runs here.

    Raises:
      RunError: model-missing, there is no such model, or it was not kept.
      ParamsError: the file is not one of tensors.
    """
    import tempfile

    from hansa.runs.start import Start, read_start  # with NumPy, as all that takes a model

    if Path(text).is_file() or "/" in text:
        return read_start(text, runs)
    with connected(membership) as connection:
        run = text.partition(":")[0]
        trail = server_trail(connection, None if run == "blake3" else run)
        if not trail.models:
            raise RunError(
                "model-missing",
                f"There is no file {text!r} here, and no run {run!r} with models at "
                f"{membership.url}. Nothing was started.",
                "See which there are with: hansa models ls --on SERVER. A run in a folder here is "
                "named by its path, as in runs/study-1:4.",
            )
        try:
            model = trail.find(text)
        except RunError as error:
            raise RunError(
                error.code,
                f"{error.happened.removesuffix('.')}, which is that of {membership.url}.",
                f"{error.hint} A run in a folder here is named by its path, as in runs/study-1:4.",
            ) from None
        with tempfile.TemporaryDirectory(prefix="hansa-model-") as place:
            path = Path(place) / "model.safetensors"
            fetch_model(connection, model, path)
            return Start(load_params(path).copy(), model.name)
