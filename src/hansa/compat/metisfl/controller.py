"""MetisFL's controller: a Hansa server for its address, made at the first start."""

from __future__ import annotations

import ipaddress
import os

from hansa.compat.metisfl.config import (
    ControllerConfig,
    ModelStoreConfig,
    ServerParams,
    check_config,
)
from hansa.compat.metisfl.place import ADMIN, Agreed, Place, end_when_over, place_at, spoken
from hansa.server.founding import found
from hansa.server.serve import serve
from hansa.server.settings import SETTINGS_FILE, ServerSettings
from hansa.store.redis_lineage import REDIS_URL


class Controller:
    """A controller; making one does nothing, so that a learner may import it.

    Args:
      server_params: where it listens.
      controller_config: how it trains.
      model_store_config: which models it keeps.
      global_train_config: `controller_config` under its name in another generation.
    """

    def __init__(
        self,
        server_params: ServerParams,
        controller_config: ControllerConfig | None = None,
        model_store_config: ModelStoreConfig | None = None,
        *,
        global_train_config: ControllerConfig | None = None,
    ) -> None:
        self.server_params = server_params
        self.controller_config = controller_config or global_train_config or ControllerConfig()
        self.model_store_config = model_store_config or ModelStoreConfig()

    def start(self) -> None:
        """Serve until a driver has ended its run, SIGTERM or Ctrl-C.

        Raises:
          SystemExit: it cannot start; the sentence says why.
        """
        with spoken():
            check_config(self.controller_config, self.model_store_config)
            place = place_at(self.server_params)
            self._found(place)
            place.agree(Agreed(self.controller_config, self.model_store_config))
            if self.server_params.server_certificate is not None:
                print("The certificates that were named are not used: Hansa makes its own.")
            end_when_over(place)
            if self.model_store_config.redis:
                os.environ.setdefault(REDIS_URL, self.model_store_config.redis)
            serve(place.server, started=lambda _: _say(place))

    def _found(self, place: Place) -> None:
        if (place.server / SETTINGS_FILE).exists():
            return
        settings = ServerSettings(
            name="metisfl",
            url=place.url,
            host=_listens_on(self.server_params.hostname),
            port=self.server_params.port,
        )
        found(place.server, settings, admin=ADMIN)


def _listens_on(hostname: str) -> str:
    """Return where the server listens: at all addresses for a name, which may stand for any."""
    host = hostname.strip("[]").lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return "127.0.0.1" if host == "localhost" else "0.0.0.0"


def _say(place: Place) -> None:
    print(f"Controller at {place.url}, over TLS; its folder is {place.server}", flush=True)
