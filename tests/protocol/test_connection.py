import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
from small_server import SmallServer

from hansa.errors import HansaError, IdentityError, RequestRefused, ServerError
from hansa.identity import create_authority
from hansa.limits import ANSWER_BYTES_MAX, SENT_PIECE_BYTES
from hansa.protocol import connection as connecting
from hansa.protocol.connection import Connection, _Socket, read_authority
from hansa.protocol.messages import BlobChunks, SessionRequest
from hansa.store.faults import disk_full

NONE = "blake3:" + "0" * 64


@pytest.fixture
def server(tmp_path) -> SmallServer:
    return SmallServer(tmp_path / "server")


def look(connection: Connection, **settings) -> RequestRefused:
    """Ask for what is not there, which needs a session and a proof."""
    with pytest.raises(RequestRefused) as refused:
        connection.call("GET", f"/v1/blobs/{NONE}/chunks", kind=BlobChunks, **settings)
    return refused.value


def code_of(error: pytest.ExceptionInfo[HansaError]) -> str:
    return error.value.code


def test_threads_share_one_session_and_no_counter_repeats(server):
    with (
        server.running() as url,
        server.connect(url, "site") as connection,
        ThreadPoolExecutor(8) as pool,
    ):
        said = list(pool.map(lambda _: look(connection).code, range(40)))
    assert said == ["blob-missing"] * 40 and server.opened == 1


def test_a_session_that_the_server_has_forgotten_is_opened_anew(server):
    with server.running() as url, server.connect(url, "site") as connection:
        assert look(connection).status == 404
        server.forget_sessions()
        assert look(connection).status == 404
        assert server.opened == 2


def test_a_renewal_is_due_when_the_server_says_so_until_the_next_session(server):
    with server.running() as url, server.connect(url, "site") as connection:
        server.renew = True
        assert connection.renewal_due() and connection.renewal_due() and server.opened == 1
        server.renew = False
        connection.renewed()
        assert not connection.renewal_due() and server.opened == 2


def test_a_server_that_came_back_is_used_again_through_the_dead_socket(server):
    with server.running() as url:
        connection = server.connect(url, "site")
        assert look(connection).status == 404
        port = int(url.rpartition(":")[2])
    with pytest.raises(ServerError, match=r"\[server-unreachable\]"):
        connection.call("GET", f"/v1/blobs/{NONE}/chunks", kind=BlobChunks)
    server.forget_sessions()
    with server.running(port):
        assert look(connection).status == 404
    connection.close()


def test_a_refusal_that_comes_before_the_body_was_taken_is_heard(server):
    body = bytes(8 * 2**20)
    with server.running() as url, server.connect(url, "site") as connection:
        for _ in range(3):
            with pytest.raises(RequestRefused) as refused:
                connection.request("PUT", f"/v1/updates/{NONE}", body=body)
            assert (refused.value.code, refused.value.status) == ("blob-digest", 422)


def test_a_full_disk_of_the_server_is_not_taken_for_ones_own(server, monkeypatch):
    def full(*_):
        raise disk_full("the blob")

    monkeypatch.setattr(server.blobs, "chunk_digests", full)
    ref = server.blobs.put_bytes(b"some bytes")[0]
    with (
        server.running() as url,
        server.connect(url, "site") as connection,
        pytest.raises(RequestRefused) as refused,
    ):
        connection.call("GET", f"/v1/blobs/{ref}/chunks", kind=BlobChunks)
    assert code_of(refused) == "server-disk-full" and refused.value.status == 507
    assert refused.value.happened.startswith(f"At {url}: There is no space left for the blob")
    assert refused.value.hint.startswith("For its operator: ")


def test_a_server_of_another_federation_is_refused_and_sees_no_request(server, tmp_path):
    (tmp_path / "other").mkdir()
    other = create_authority(tmp_path / "other", federation="test")  # the same name, another key
    with server.running() as url:
        connection = Connection(url, authority_pem=other.pem, key=server.key("site"))
        with pytest.raises(IdentityError) as error:
            connection.request("GET", "/v1/authority")
        assert code_of(error) == "identity-tls"
        port = url.rpartition(":")[2]
        for host in ("127.0.0.2", "localhost.localdomain"):  # names it has no certificate for
            stranger = server.connect(f"https://{host}:{port}", "site")
            with pytest.raises(HansaError) as error:
                stranger.request("GET", "/v1/authority")
            assert code_of(error) in ("identity-tls", "server-unreachable")
    assert server.opened == 0


@pytest.fixture
def answering():
    """A listener that answers every connection with the same bytes, in clear or over TLS."""
    open_: list[socket.socket] = []

    def start(data: bytes, context: ssl.SSLContext | None = None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        open_.append(listener)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(client,), daemon=True).start()

        def answer(client: socket.socket) -> None:
            try:
                if context is not None:
                    client = context.wrap_socket(client, server_side=True)
                client.recv(65_536)
                client.sendall(data)
                client.close()
            except OSError:
                client.close()

        threading.Thread(target=serve, daemon=True).start()
        return f"https://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in open_:
        listener.close()


def tls(server: SmallServer) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.folder / "tls.pem", server.folder / "tls-key.pem")
    return context


def test_a_server_without_tls_or_with_an_old_one_is_refused(server, answering):
    plain = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    old = tls(server)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for url in (plain, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", old)):
        with pytest.raises(HansaError) as error:
            server.connect(url, "site").request("GET", "/v1/authority")
        assert code_of(error) in ("server-unreachable", "identity-tls")


HUGE = b"x" * (ANSWER_BYTES_MAX + 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(HUGE) + HUGE,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n[1, 2, 3",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe\xfd",
        b"nonsense\r\n\r\n",
        b"",
    ],
    ids=["huge", "short", "no-json", "wrong-type", "no-text", "no-http", "nothing"],
)
def test_an_answer_that_makes_no_sense_is_an_error_with_a_sentence(server, answering, answer):
    connection = server.connect(answering(answer, tls(server)), "site")
    message = SessionRequest(certificate="")
    with pytest.raises(ServerError) as error:
        connection.call("POST", "/v1/sessions", message, kind=BlobChunks)
    assert code_of(error) == "server-unreachable"


def test_redirects_are_not_followed_and_odd_refusals_are_cleaned(server, answering):
    moved = b"HTTP/1.1 307 M\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    connection = server.connect(answering(moved, tls(server)), "site")
    assert connection.request("GET", "/v1/authority").status == 307
    said = msgspec.json.encode({"error": {"code": "from-the-future", "message": "\x1b[2Jno"}})
    head = b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n" % len(said)
    connection = server.connect(answering(head + said, tls(server)), "site")
    with pytest.raises(RequestRefused) as refused:
        connection.request("GET", "/v1/authority")
    assert (refused.value.code, refused.value.said) == ("server-refused", "from-the-future")
    assert (refused.value.status, refused.value.retry_after_s) == (429, 7.0)
    assert "\x1b" not in str(refused.value)


def test_no_body_leaves_without_a_key(server):
    with server.running() as url:
        connection = Connection(url, authority_pem=server.authority.pem)
        with pytest.raises(IdentityError, match=r"\[identity-proof\]"):
            connection.request("PUT", f"/v1/updates/{NONE}", body=b"secret")
        assert connection.request("GET", "/v1/authority").body.decode() == server.authority.pem


def test_the_authority_is_believed_by_its_fingerprint_alone(server):
    with server.running() as url:
        assert read_authority(url, server.authority.fingerprint) == server.authority.pem
        wrong = ("0" if server.authority.fingerprint[0] != "0" else "1") + (
            server.authority.fingerprint[1:]
        )
        for fingerprint in (wrong, "", server.authority.fingerprint[:-1]):
            with pytest.raises(IdentityError, match=r"\[identity-tls\]"):
                read_authority(url, fingerprint)
    with pytest.raises(ServerError, match=r"\[server-unreachable\]"):
        read_authority(url, server.authority.fingerprint)


@pytest.mark.parametrize(
    "url",
    ["", "x", "http://127.0.0.1:1", "https://", "https://h/p", "https://h:x", "https://h:99999",
     "https://h?q=1", "ftp://h"],
)  # fmt: skip
def test_what_is_no_address_is_refused_at_once(server, url):
    with pytest.raises(ServerError, match=r"\[server-unreachable\]"):
        Connection(url, authority_pem=server.authority.pem)
    with pytest.raises(IdentityError, match=r"\[identity-tls\]"):
        Connection("https://127.0.0.1:1", authority_pem="no certificate")


def test_a_proxy_of_the_environment_carries_the_connection_and_sees_only_names(server, monkeypatch):
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def proxy() -> None:
        client, _ = listener.accept()
        seen.append(client.recv(65_536))
        host, _, port = seen[0].split()[1].decode().partition(":")
        server_end = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=pump, args=(client, server_end), daemon=True).start()
        pump(server_end, client)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                seen.append(data)
                sink.sendall(data)
        except OSError:
            pass

    threading.Thread(target=proxy, daemon=True).start()
    with server.running() as url:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        with server.connect(url, "site") as connection:
            assert look(connection).status == 404
    listener.close()
    assert seen[0].startswith(b"CONNECT 127.0.0.1:") and len(seen) > 3
    assert not any(NONE.encode() in data or b"Hansa-Proof" in data for data in seen)


def test_a_slow_network_is_not_taken_for_a_silent_one():
    """Review: a piece of 8 MiB had to leave within the time that a server may be silent."""
    body = np.random.default_rng(6).bytes(16 * SENT_PIECE_BYTES)
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    here.settimeout(1.0)
    took = bytearray()

    def read():
        while data := there.recv(SENT_PIECE_BYTES // 8, socket.MSG_WAITALL):
            took.extend(data)
            time.sleep(0.015)

    reader = threading.Thread(target=read)
    reader.start()
    sending = _Socket("localhost", silence_s=1.0)
    sending.sock = here
    began = time.monotonic()
    sending.send(memoryview(body))
    assert time.monotonic() - began > 1.0
    here.close()
    reader.join()
    there.close()
    assert took == body


def test_a_server_that_pauses_while_it_is_sent_to_is_not_one_that_cannot_be_reached(
    server, monkeypatch
):
    """The limit of connecting was that of the first body's pieces too."""
    monkeypatch.setattr(connecting, "CONNECT_S", 0.3)
    body, took = bytes(32 * 2**20), []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.folder / "tls.pem", server.folder / "tls-key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with context.wrap_socket(client, server_side=True) as tls, tls.makefile("rb") as request:
            while request.readline() != b"\r\n":
                pass
            time.sleep(1.0)
            took.append(len(request.read(len(body))))
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    with Connection(url, authority_pem=server.authority.pem, timeout_s=20.0) as connection:
        connection.request("PUT", "/v1/authority", body=memoryview(body))  # needs no key
    serving.join(20)
    listener.close()
    assert took == [len(body)]


def test_a_server_that_never_takes_the_body_is_silent_and_one_that_never_greets_is_not_there(
    server, monkeypatch
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.folder / "tls.pem", server.folder / "tls-key.pem")
    over = threading.Event()

    def serve(listener: socket.socket, greets: bool) -> None:
        client, _ = listener.accept()
        with context.wrap_socket(client, server_side=True) if greets else client:
            over.wait(20)

    def asked(greets: bool, **settings: float) -> float:
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=serve, args=(listener, greets), daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        body, began = memoryview(bytes(32 * 2**20)), time.monotonic()
        with (
            Connection(url, authority_pem=server.authority.pem, **settings) as connection,
            pytest.raises(ServerError, match="timed out"),
        ):
            connection.request("PUT", "/v1/authority", body=body)
        listener.close()
        return time.monotonic() - began

    assert asked(greets=True, timeout_s=0.5) < 10
    monkeypatch.setattr(connecting, "CONNECT_S", 0.5)
    assert asked(greets=False, timeout_s=60.0) < 10
    over.set()
