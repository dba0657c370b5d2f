from pathlib import Path

import pytest

from hansa.errors import ServerError
from hansa.server.settings import ServerSettings, load_settings, settings_text


def written(folder: Path, text: str) -> Path:
    (folder / "server.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_file_with_every_key_reads_back_as_the_same_settings(tmp_path):
    chosen = ServerSettings(name='He said "yes"', url="https://a.example:443", port=9000, runs=3)
    assert load_settings(written(tmp_path, settings_text(chosen))) == chosen


def test_every_key_has_a_meaning_and_a_default(tmp_path):
    lines = settings_text(ServerSettings()).splitlines()
    assert [line.split(" = ")[0] for line in lines] == list(ServerSettings.__struct_fields__)
    assert all("  # " in line for line in lines)
    assert load_settings(written(tmp_path, "")) == ServerSettings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('tls = false\nhost = "0.0.0.0"', "loopback only"),
        ('tls = false\nhost = "192.0.2.7"', "loopback only"),
        ("prot = 8443", "prot"),
        ('[tls]\ncert = "a"', "tls"),
        ("port = 0", "port"),
        ("port = 65536", "port"),
        ("port = -1", "port"),
        ('port = "8443"', "port"),
        ("heartbeat_s = 0", "heartbeat_s"),
        ("heartbeat_s = nan", "heartbeat_s"),
        ("deadline_s = inf", "deadline_s"),
        ("deadline_s = 0", "deadline_s"),
        ("gather_s = -1", "gather_s"),
        ("runs = 0", "runs"),
        ('name = ""', "name"),
        (f'name = "{"x" * 65}"', "name"),
        ('name = "a\\nb"', "name"),
        ('url = "http://a.example"', "url"),
        ('url = "https://"', "url"),
        ('url = "https://a.example/path"', "url"),
        ('url = "https://u:p@a.example"', "url"),
        ('url = "https://a.example:x"', "url"),
        ('url = "https://bücher.example"', "xn--"),
        ('host = "bücher.example"', "host"),
        ("port = ", "cannot be used"),
        ("port = 1\nport = 2", "cannot be used"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(tmp_path, text, says):
    with pytest.raises(ServerError) as refused:
        load_settings(written(tmp_path, text))
    assert refused.value.code == "server-settings"
    assert says in refused.value.happened


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_without_tls_a_server_may_listen_on_loopback(tmp_path, host):
    text = f'tls = false\nhost = "{host}"'
    assert load_settings(written(tmp_path, text)).host == host


def test_a_folder_without_settings_or_with_bytes_for_them_is_no_server(tmp_path):
    with pytest.raises(ServerError, match="hansa server init"):
        load_settings(tmp_path)
    (tmp_path / "server.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ServerError, match="server-settings"):
        load_settings(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match="server-settings"):
        load_settings(tmp_path / "file")


def test_the_nearest_key_is_named_for_one_that_is_none(tmp_path):
    with pytest.raises(ServerError) as refused:
        load_settings(written(tmp_path, "prot = 28643"))
    assert refused.value.hint == "Did you mean 'port'?"
