"""A client's way to its server: one address, TLS 1.3, and a proof with every request.

The server is believed only with a certificate of the federation's own authority, and its answers
only as far as their size and type hold.  No body leaves without a proof that is bound to it.
"""

from __future__ import annotations

import hmac
import http.client
import ssl
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
import urllib3
import urllib3.connection
from blake3 import blake3
from urllib3.exceptions import HTTPError, ProtocolError, SSLError

from hansa.clock import monotonic
from hansa.errors import HansaError, IdentityError, RequestRefused, ServerError
from hansa.identity.keys import MemberKey
from hansa.identity.proof import Prover
from hansa.limits import (
    ANSWER_BYTES_MAX,
    CONNECT_S,
    CONNECTIONS_MAX,
    ERROR_BYTES_MAX,
    MESSAGE_CHARS_MAX,
    OPEN_BODY_BYTES_MAX,
    PIECE_BYTES,
    SENT_PIECE_BYTES,
    SESSION_SPARE_S,
)
from hansa.protocol.messages import ErrorAnswer, SessionAnswer, SessionRequest
from hansa.text import clean

T = TypeVar("T")

_OPEN = ("/v1/authority", "/v1/sessions", "/v1/enrolments")  # answered without a proof


class Pieces:
    """A large body, sent piece by piece.

    Args:
      on_piece: told the number of each piece that has left.
    """

    def __init__(self, data: memoryview, size: int, on_piece: Callable[[int], None]) -> None:
        self._data, self._size, self._on_piece = data, size, on_piece

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[memoryview]:
        for number, at in enumerate(range(0, len(self._data), self._size)):
            yield self._data[at : at + self._size]
            self._on_piece(number)


Body = bytes | memoryview | Pieces


class Answer(NamedTuple):
    """A server's answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Socket(urllib3.connection.HTTPSConnection):
    """Reads the answer of a server that closes before it has taken the whole body: a refusal.

    A large body leaves in small pieces, for a socket's time limit is that of one call: it tells
    a network that is silent from one that is slow.

    Args:
      silence_s: seconds for which the server may be silent while it is sent something.
    """

    def __init__(self, *args: Any, silence_s: float, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._silence_s = silence_s

    def send(self, data: Any) -> None:
        try:
            if isinstance(data, memoryview):
                self.sock.settimeout(self._silence_s)  # urllib3 has set that of connecting
                for at in range(0, len(data), SENT_PIECE_BYTES):
                    super().send(data[at : at + SENT_PIECE_BYTES])
            else:
                super().send(data)
        except (ConnectionError, ssl.SSLError) as error:
            raise BrokenPipeError(str(error)) from error  # which urllib3 takes in this sense


class Connection:
    """Speaks to one server as one member, or as nobody.  Threads may share it.

    Args:
      url: https://HOST:PORT; a path is not allowed.
      authority_pem: the only authority that the server is verified against.
      key: the member's; None: only what is open to anyone can be asked for.
      certificate: the member's, or a function that reads it anew each time a session is opened.
      timeout_s: longest silence of the server, unless a call says otherwise.

    Raises:
      ServerError: server-unreachable, the address is not one.
      IdentityError: identity-tls, the authority's certificate cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        authority_pem: str,
        key: MemberKey | None = None,
        certificate: str | Callable[[], str] = "",
        timeout_s: float = 30.0,
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._certificate = certificate
        self._timeout_s = timeout_s
        self._pool = _pool(self.url, _verifying(authority_pem), timeout_s)
        self._session_lock = threading.Lock()
        self._prover: Prover | None = None
        self._session_end = 0.0  # on the monotonic clock
        self._renewal_due = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; the connection cannot be used any more."""
        self._pool.close()

    def renewal_due(self) -> bool:
        """Tell whether the server found, when it opened the session, a renewal due.

        Raises:
          as `call`.
        """
        self._proven()
        return self._renewal_due

    def renewed(self) -> None:
        """Open another session next, with the certificate as it is now."""
        self._forget(self._prover)

    def call(
        self,
        method: str,
        path: str,
        message: msgspec.Struct | Body | None = None,
        *,
        kind: type[T],
        headers: Mapping[str, str] | None = None,
        digest: str | None = None,
        timeout_s: float | None = None,
    ) -> T:
        """Send a message and return the answer, checked against its type.

        Args:
          path: with the query, percent-encoded.
          message: or a body as it is.
          kind: type of the answer.
          digest: as `request`.

        Raises:
          RequestRefused: the server said no.
          ServerError: server-unreachable, no answer came, or none that makes sense.
          IdentityError: identity-tls, the server is not the federation's.
        """
        body = msgspec.json.encode(message) if isinstance(message, msgspec.Struct) else message
        answer = self.request(
            method, path, body=body, headers=headers, digest=digest, timeout_s=timeout_s
        )
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _no_sense(self.url, f"{method} {path}: {error}") from None

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        digest: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send a request and return its answer of at most ANSWER_BYTES_MAX bytes.

        Args:
          digest: BLAKE3 of the body as hex digits, where the caller knows it.

        Raises:
          as `call`.
        """
        with self.stream(
            method, path, body=body, headers=headers, digest=digest, timeout_s=timeout_s
        ) as response:
            data = _read_bounded(response, ANSWER_BYTES_MAX, self.url)
            return Answer(response.status, response.headers, data)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        digest: str | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Give the answer to a request as it comes; refusals are raised, as by `request`."""
        headers = dict(headers or {})
        if isinstance(body, Pieces):
            headers["Content-Length"] = str(len(body))
        if digest is None:
            assert not isinstance(body, Pieces), "of a large body the caller knows the digest"
            digest = blake3(b"" if body is None else body).hexdigest()
        timeout = urllib3.Timeout(
            connect=min(CONNECT_S, timeout_s or self._timeout_s),
            read=timeout_s or self._timeout_s,
        )
        with _network(self.url):
            response = self._send(method, path, body, headers, digest, timeout)
            try:
                yield response
            finally:
                _release(response)

    def _send(
        self,
        method: str,
        path: str,
        body: Body | None,
        headers: dict[str, str],
        digest: str,
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        """Send with a proof, once more if the session has ended or the socket was a dead one."""
        second = False
        while True:
            prover = None if path in _OPEN or self._key is None else self._proven()
            if prover is None and body is not None and path not in _OPEN:
                raise _no_key(self.url)
            if prover is not None:
                headers["Hansa-Proof"] = prover.header(method, path, digest)
            try:
                response = self._pool.urlopen(
                    method,
                    path,
                    body=body,  # type: ignore[arg-type]  # memoryviews, and pieces, are sent as they are
                    headers=headers,
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                )
            except (ProtocolError, SSLError) as error:
                self._forget(prover)  # the server may have gone, and its sessions with it
                if second or len(body or b"") > PIECE_BYTES or not _was_idle(error):
                    raise
                second = True
                continue
            if response.status < 400:
                return response
            refusal = _refusal(response, self.url)
            _release(response)
            if second or prover is None or refusal.said != "identity-session":
                raise refusal
            self._forget(prover)
            second = True

    def _proven(self) -> Prover:
        """Return what signs requests; a session is opened if there is none for long enough."""
        assert self._key is not None
        with self._session_lock:
            if self._prover is None or monotonic() > self._session_end:
                pem = self._certificate
                request = SessionRequest(certificate=pem if isinstance(pem, str) else pem())
                answer = self.call("POST", "/v1/sessions", request, kind=SessionAnswer)
                self._prover = Prover(self._key, answer.session)
                self._renewal_due = answer.renew
                self._session_end = monotonic() + max(0.0, answer.seconds - SESSION_SPARE_S)
            return self._prover

    def _forget(self, prover: Prover | None) -> None:
        if prover is None:  # a session was being opened: the lock is held by this thread
            return
        with self._session_lock:
            if self._prover is prover:
                self._prover = None


def read_authority(url: str, fingerprint: str, *, timeout_s: float = 30.0) -> str:
    """Return the authority's certificate, PEM, if it is the one with this fingerprint.

    The connection trusts nothing and gives nothing away; only what has the fingerprint counts.

    Raises:
      ServerError: server-unreachable.
      IdentityError: identity-tls, the server has another authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    pool = _pool(url.rstrip("/"), context, timeout_s)
    try:
        with _network(url), warnings.catch_warnings():
            # Not verified is the point here: the fingerprint below decides.
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            response = pool.urlopen(
                "GET",
                "/v1/authority",
                timeout=urllib3.Timeout(connect=min(CONNECT_S, timeout_s), read=timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            if response.status >= 400:
                raise _refusal(response, url)
            pem = _read_bounded(response, OPEN_BODY_BYTES_MAX, url).decode("ascii", "replace")
    finally:
        pool.close()
    from hansa.identity.authority import authority_fingerprint  # X.509, which is slow to import

    if not hmac.compare_digest(authority_fingerprint(pem).encode(), fingerprint.encode()):
        raise IdentityError(
            "identity-tls",
            f"{url} shows an authority that is not the invitation's; nothing was sent to it.",
            "Check the invitation with whoever sent it; somebody may be in between.",
        )
    return pem


def _verifying(authority_pem: str) -> ssl.SSLContext:
    """Return a TLS context that believes this authority and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=authority_pem)
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(
            "identity-tls",
            f"The certificate of the federation's authority cannot be used: {error}.",
            "Restore the membership's folder from a backup, or join again.",
        ) from None
    return context


def _pool(url: str, context: ssl.SSLContext, silence_s: float) -> urllib3.HTTPSConnectionPool:
    """Return the sockets to a server, through a proxy where the environment names one."""
    try:
        place = urlsplit(url)
        host, port = place.hostname, place.port or 443
    except ValueError:
        host = None
    if host is None or place.scheme != "https" or place.path or place.query:
        raise ServerError(
            "server-unreachable",
            f"{url!r} is not the address of a server.",
            "Write https://HOST:PORT, as in the invitation.",
        )
    settings: dict[str, Any] = {
        "ssl_context": context,
        "maxsize": CONNECTIONS_MAX,
        "block": False,
        "blocksize": PIECE_BYTES,
    }
    proxy = urllib.request.getproxies_environment().get("https")
    if proxy and not urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        manager: urllib3.PoolManager = urllib3.ProxyManager(proxy, **settings)
    else:
        manager = urllib3.PoolManager(**settings)
    pool = manager.connection_from_host(host, port, "https")
    assert isinstance(pool, urllib3.HTTPSConnectionPool)
    pool.ConnectionCls, pool.conn_kw["silence_s"] = _Socket, silence_s
    return pool


def _was_idle(error: HTTPError) -> bool:
    """Tell whether the server may have closed the socket before it saw the request."""
    causes = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
    return any(isinstance(cause, causes) for cause in error.args)


@contextmanager
def _network(url: str) -> Iterator[None]:
    """Turn what can go wrong on the way into errors a person can act on."""
    try:
        yield
    except HansaError:
        raise
    except (HTTPError, http.client.HTTPException, OSError) as error:
        cause = _root(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise IdentityError(
                "identity-tls",
                f"{url} is not the federation's server: {cause.verify_message}. Nothing was sent.",
                "Check the address, and this computer's clock; or somebody may be in between.",
            ) from error
        raise ServerError(
            "server-unreachable",
            f"{url} cannot be reached: {cause or error}.",
            "Check the address, the network and whether the server runs; then try again.",
        ) from error


def _root(error: BaseException) -> BaseException:
    """Return what the first of these errors was."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _read_bounded(response: urllib3.BaseHTTPResponse, limit: int, url: str) -> bytes:
    """Return an answer's body if it is not larger than it may be."""
    parts, total = [], 0
    while data := response.read(min(PIECE_BYTES, limit + 1 - total)):
        parts.append(data)
        total += len(data)
        if total > limit:
            response.close()
            raise _no_sense(url, f"an answer of more than {limit} bytes")
    return b"".join(parts)


def _release(response: urllib3.BaseHTTPResponse) -> None:
    """Give the socket back if all was read from it, else close it."""
    read_all = getattr(response, "length_remaining", None) == 0
    if not read_all:
        response.close()
    response.release_conn()


def _refusal(response: urllib3.BaseHTTPResponse, url: str) -> RequestRefused:
    """Return a server's no, whatever it says."""
    body = _read_bounded(response, ERROR_BYTES_MAX, url)
    try:
        said = msgspec.json.decode(body, type=ErrorAnswer).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = {}
    try:
        wait_s = float(response.headers.get("Retry-After", "0"))
    except ValueError:
        wait_s = 0.0
    code = said.get("code", "server-refused")
    message = said.get("message", f"{url} answered {response.status}.")
    hint = said.get("hint", "Look at the server's log.")
    if code.startswith("server-disk"):  # or one would look at one's own
        message, hint = f"At {url}: {message}", f"For its operator: {hint}"
    return RequestRefused(
        code,
        clean(message, MESSAGE_CHARS_MAX),
        clean(hint, MESSAGE_CHARS_MAX),
        status=response.status,
        retry_after_s=wait_s if 0.0 <= wait_s < 86_400.0 else 0.0,
    )


def _no_sense(url: str, what: str) -> ServerError:
    return ServerError(
        "server-unreachable",
        f"{url} answers in a way that makes no sense: {what}.",
        "Check the address, and that client and server are of releases that fit together.",
    )


def _no_key(url: str) -> IdentityError:
    return IdentityError(
        "identity-proof",
        f"Something should be sent to {url} without a key to prove who sends it; it was not.",
        "Join the federation first: hansa join INVITE",
    )
