"""The models of a run at its server, brought into the run folder here."""

from __future__ import annotations

from hansa.errors import RequestRefused
from hansa.protocol.connection import Connection
from hansa.protocol.messages import BlobRef
from hansa.protocol.transfer import Known, download
from hansa.runs import RunFolder


def fetch_models(folder: RunFolder, connection: Connection, *, largest: int | None = None) -> None:
    """Download the models that the folder keeps and does not have: every n-th, best and last.

    While a run goes on, one may be gone from the server before it is asked for, because a better
    or a newer one has come; then that one's turn comes.

    Args:
      folder: of the run, with the server's events.
      connection: to its server.
      largest: bytes; larger ones are left for the end of the run.

    Raises:
      RequestRefused: the run is over, and the server has not kept its models.
      ServerError: the server cannot be reached.
    """
    over = folder.state != "running"
    wanted = [e for e in folder.kept() if not folder.model_path(e["round"]).is_file()]
    last = folder.commits()[-1]["round"] if wanted else 0
    for event in wanted:
        size = event["model_size"]
        if largest is not None and size > largest:
            continue
        # Layers that did not change since an older model need not travel again.
        known = [
            Known(path) for path in sorted(folder.path.glob("models/round-*.safetensors"))[-2:]
        ]
        ref = BlobRef(digest=event["model"], size=size)
        try:
            download(connection, ref, folder.model_path(event["round"]), known=known)
        except RequestRefused as refused:
            # A file that goes while it is being sent is a 404 without words.
            if refused.status != 404 or (over and event["round"] == last):
                raise
    if wanted:
        folder.forget_models()
    if over:
        for part in folder.path.glob("models/*.part"):  # of downloads that nobody needs any more
            part.unlink(missing_ok=True)
