# SPDX-License-Identifier: Apache-2.0
"""HTTPS to a real server on loopback: who is asked, who is believed, and how much is read."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from orchestrator.agent.fetch import check, get, hopeless, put
from orchestrator.errors import Exit, InvalidInput, Unreachable


def test_a_file_comes_once_and_then_not_again(server):
    server.files["/f"] = b"x" * 100_000
    first = get(f"{server.url}/f", 1 << 20, ca=server.ca)
    assert first.body == server.files["/f"] and first.etag
    assert get(f"{server.url}/f", 1 << 20, ca=server.ca, etag=first.etag).body is None
    server.files["/f"] = b"other"
    assert get(f"{server.url}/f", 1 << 20, ca=server.ca, etag=first.etag).body == b"other"


def test_a_certificate_that_nobody_vouches_for_does_not_count(server, tmp_path):
    server.files["/f"] = b"x"
    with pytest.raises(Unreachable) as e:
        get(f"{server.url}/f", 100)
    assert "certificate does not count" in e.value.problems[0].what and server.asked == [] and hopeless(e.value)
    with pytest.raises(Unreachable, match="certificate"):  # right authority, other name
        get(f"{server.url}/f".replace("127.0.0.1", "localhost"), 100, ca=server.ca)
    (tmp_path / "no.pem").write_text("x")
    for ca in (str(tmp_path / "no.pem"), str(tmp_path / "nowhere")):
        with pytest.raises(InvalidInput, match="certificates cannot be read"):
            get(f"{server.url}/f", 100, ca=ca)


def test_too_much_is_not_read(server):
    server.files["/f"] = b"x" * 1001
    with pytest.raises(InvalidInput, match="too large"):
        get(f"{server.url}/f", 1000, ca=server.ca)
    assert get(f"{server.url}/f", 1001, ca=server.ca).body is not None


def test_a_truncated_answer_is_none(server):
    server.files["/f"], server.lie = b"x" * 10, 100
    with pytest.raises(Unreachable) as e:
        get(f"{server.url}/f", 1000, ca=server.ca, timeout=5)
    assert "10 of 100 bytes" in e.value.problems[0].why


@pytest.mark.parametrize(("status", "again"), [(301, False), (404, False), (403, False), (429, True), (503, True)])
def test_what_the_server_does_not_give(server, status, again):
    server.answers = [status]
    with pytest.raises(Unreachable) as e:
        get(f"{server.url}/f", 1000, ca=server.ca)
    assert e.value.exit_code == Exit.UNREACHABLE and str(status) in e.value.problems[0].why
    assert hopeless(e.value) is not again
    assert len(server.asked) == 1  # nothing is followed
    if status == 301:
        assert "redirects are not followed" in e.value.problems[0].fix and "/elsewhere" in e.value.problems[0].fix


@pytest.mark.parametrize(
    "url",
    ["http://example.org/x", "ftp://example.org/x", "file:///etc/passwd", "https://", "https://a:b@example.org/x",
     "http://127.0.0.1.example.org/", "https://[::1", "https://h:99999/", "data:text/plain,x", "http://10.0.0.1/"],
)  # fmt: skip
def test_addresses_that_are_not_asked(url):
    with pytest.raises(InvalidInput) as e:
        check(url)
    assert ":b@" not in str(e.value.problems)  # a password is not said again


def test_plain_http_is_for_loopback():
    for host in ("127.0.0.1", "localhost", "[::1]"):
        check(f"http://{host}:8080/x")


def test_nobody_there():
    with pytest.raises(Unreachable, match="cannot be reached"):
        get("https://127.0.0.1:9/x", 10)


def test_a_server_that_drips_is_left():
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        with listener.accept()[0] as client:
            client.recv(4096)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                try:
                    client.sendall(b"x")
                except OSError:
                    return
                time.sleep(0.05)

    threading.Thread(target=drip, daemon=True).start()
    with pytest.raises(Unreachable) as e:
        get(f"http://127.0.0.1:{listener.getsockname()[1]}/x", 10_000, whole=0.3)
    assert "not done after" in e.value.problems[0].why  # it did not wait for the rest
    listener.close()


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(server, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    server.files["/f"] = b"x"
    assert get(f"{server.url}/f", 10, ca=server.ca).body == b"x"


def test_put_brings_the_token_in_a_header(server):
    put(f"{server.url}/r.json", b"{}", token="s3cret", ca=server.ca)
    assert server.put["/r.json"] == b"{}" and server.asked == [("PUT", "/r.json", 201, "Bearer s3cret")]
