# SPDX-License-Identifier: Apache-2.0
"""`kdo serve` as a whole: what it answers is what it says it answers, only to whom it should, and nothing can be changed there."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.errors import KdoError
from orchestrator.store.store import Store
from tests.web.serving import EVIL, basic, fill, serving


@pytest.fixture
def server(store_url, tmp_path):
    with Store(store_url) as store:
        run = fill(store)
    with serving(store_url, tmp_path) as found:
        yield found, run


def test_every_answer_is_as_the_description_says_and_no_route_changes_anything(server):
    ask, run = server[0].ask, server[1]
    described = ask("/api/v1/openapi.json").data
    values = {"host": "b", "run": run}
    asked = 0
    for path, methods in described["paths"].items():
        assert set(methods) == {"get"}, path
        filled = path
        for name, value in values.items():
            filled = filled.replace(f"{{{name}}}", value)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert ask(filled, method=method).status == 405, (method, filled)
        answers = methods["get"]["responses"]["200"].get("content", {})
        if path.endswith("/events"):
            first = server[0].first_event(filled)
            assert first[0].startswith("event: ") and first[1].startswith("data: {"), filled
        if path.endswith("/events") or "application/json" not in answers:
            continue
        answer = ask(filled)
        assert answer.status == 200, (filled, answer.body)
        schema = {**answers["application/json"]["schema"], "components": described["components"]}
        Draft202012Validator(schema).validate(answer.data)
        asked += 1
    assert asked >= 9
    for path in ("/", "/hosts", "/hosts/a", "/runs", f"/runs/{run}", "/waivers", "/audit"):
        assert ask(path, method="POST").status == 405, path


def test_what_is_answered(server):
    ask, run = server[0].ask, server[1]
    status = ask("/api/v1/status").data
    assert status["hosts"] == 5 and status["states"] == {
        "failed": 1,
        "unreachable": 1,
        "drift": 1,
        "waived": 1,
        "compliant": 1,
    }
    assert [h["host"] for h in ask("/api/v1/hosts?sort=-host&limit=2").data["hosts"]] == ["e", "d"]
    assert [h["host"] for h in ask("/api/v1/hosts?state=failed&state=drift&offset=1").data["hosts"]] == ["e"]
    assert [h["host"] for h in ask("/api/v1/hosts?q=no%20ANSWER").data["hosts"]] == ["e"]
    assert [h["host"] for h in ask("/api/v1/hosts?tag=zone%3Da").data["hosts"]] == ["e"]
    assert ask("/api/v1/hosts?arch=%3F").data["total"] == 3  # those of which it is not known
    b = ask("/api/v1/hosts/b").data
    assert b["host"]["state"] == "compliant" and b["host"]["detail"]["evidence"] and b["proofs"][0]["counts"] is True
    assert b["host"]["detail"]["trace"] and b["traced"] == ""  # the shipped policy decided it
    assert "never" in ask("/api/v1/hosts/d").data["traced"]
    found = ask("/api/v1/runs/last").data
    assert found["run"]["id"] == run and found["alive"] and [w["hosts"] for w in found["waves"]] == [1, 4]
    assert [r["id"] for r in ask("/api/v1/pulse").data["runs"]] == [run]
    assert ask("/api/v1/waivers").data["waivers"][0]["id"] == "W1"
    assert ask("/api/v1/audit").data["total"] == 2
    lost = ask("/api/v1/hosts/nobody")
    assert lost.status == 404 and "nobody" in lost.data["what"]
    assert ask("/api/v1/hosts?sort=password").status == 400
    families = {f.name: f for f in text_string_to_metric_families(ask("/metrics").body)}
    assert {s.labels["state"]: s.value for s in families["kdo_hosts"].samples}["failed"] == 1
    assert {(s.labels["kind"], s.labels["state"]) for s in families["kdo_runs"].samples} == {("sweep", "done"), ("apply", "running")}  # fmt: skip
    assert ask("/healthz", token=None).body == "ok\n"
    # What hosts say never becomes markup.
    for path in ("/hosts", "/hosts/d", f"/runs/{run}"):
        assert "<img" not in ask(path).body
    assert "&lt;img src=x onerror=alert(1)&gt;{{ 7*7 }}" in ask("/hosts/d").body
    assert ask("/hosts/" + "%3Cimg%3E").body.count("<img") == 0 and EVIL


def test_who_may_look(server):
    ask = server[0].ask
    for path in ("/", "/api/v1/status", "/metrics", "/static/live.js", "/api/v1/openapi.json", "/nothing"):
        answer = ask(path, token=None)
        assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Basic"), path
        assert ask(path, token="wrong").status == 401
    for wrong in ("Basic !!!", basic("wrong"), basic(""), "Bearer", "Digest x"):
        assert ask("/", token=None, Authorization=wrong).status == 401
    good = ask("/", token=None, Authorization=basic("a-token-that-nobody-guesses"))
    assert good.status == 200 and "frame-ancestors 'none'" in good.headers["content-security-policy"]
    assert "unsafe" not in good.headers["content-security-policy"] and good.headers["cache-control"] == "no-store"
    assert ask("/", Host="evil.example").status == 400  # a name that somebody else made point here
    assert ask("/", Host="localhost:1").status == 200


def test_the_connection_itself_refuses_to_write(store_url):
    with Store(store_url) as store:
        fill(store)
    with Store(store_url, readonly=True) as store:
        assert store.database.read("SELECT count(*) FROM host") == [(5,)]
        with pytest.raises(KdoError, match="store cannot be used"):
            store.database.do(lambda s: s.all("DELETE FROM host"))
        assert store.database.read("SELECT count(*) FROM host") == [(5,)]


def test_looking_around_leaves_the_file_as_it_is(tmp_path):
    url = str(tmp_path / "store.db")
    with Store(url) as store:
        fill(store)
    before = hashlib.sha256(Path(url).read_bytes()).hexdigest()
    with serving(url, tmp_path) as server:
        for path in ("/", "/hosts", "/hosts/a", "/runs", "/runs/last", "/waivers", "/audit", "/metrics"):
            assert server.ask(path).status == 200
    assert hashlib.sha256(Path(url).read_bytes()).hexdigest() == before


def test_behind_a_proxy_the_header_counts_and_only_from_there(tmp_path):
    url = str(tmp_path / "store.db")
    with Store(url) as store:
        fill(store)
    with serving(url, tmp_path, "--auth", "proxy") as server:
        assert server.ask("/", token=None, X_Forwarded_User="ann", Host="kdump.example").status == 200
        assert server.ask("/", token=None).status == 401
    with serving(url, tmp_path, "--auth", "proxy", "--proxy-from", "192.0.2.0/24") as server:
        spoofed = {"X_Forwarded_User": "ann", "X_Forwarded_For": "192.0.2.1"}
        assert server.ask("/", token=None, **spoofed).status == 401


def test_on_a_unix_socket(tmp_path):
    url, path = str(tmp_path / "store.db"), tmp_path / "s"
    with Store(url) as store:
        fill(store)
    command = [
        sys.executable,
        "-m",
        "orchestrator",
        "serve",
        "--store",
        url,
        "--listen",
        f"unix:{path}",
        "--auth",
        "proxy",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        for _ in range(300):
            if path.exists():
                break
            assert process.poll() is None
            time.sleep(0.1)
        for header, wanted in (("X-Forwarded-User: ann\r\n", b"200"), ("", b"401")):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(path))
                s.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n".encode())
                assert s.makefile("rb").readline().split()[1] == wanted
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "0.0.0.0:8420"], "in the clear"),
        (["--listen", "0.0.0.0:8420", "--auth", "none"], "anybody"),
        (["--listen", "nowhere"], "no place to listen"),
        (["--auth", "proxy", "--proxy-from", "everywhere"], "no network"),
        (["--token-file", "/does/not/exist"], "cannot be read"),
        (["--token-file", "{wide}"], "others can read"),
        (["--token-file", "{short}"], "too short"),
        (["--store", "/does/not/exist.db", "--auth", "none"], "nothing is remembered"),
    ],
)
def test_what_it_refuses_before_it_listens(tmp_path, arguments, said):
    wide, short = tmp_path / "wide", tmp_path / "short"
    wide.write_text("x" * 40)
    wide.chmod(0o644)
    short.touch(0o600)
    short.write_text("secret")
    names = {"wide": str(wide), "short": str(short)}
    command = [sys.executable, "-m", "orchestrator", "serve", *(a.format(**names) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 and said in done.stderr and "Traceback" not in done.stderr


def test_a_credential_of_systemd_may_show_rights_of_the_group(tmp_path):
    """They are those of a list that names the unit's own user; elsewhere the same mode is refused."""
    token = tmp_path / "token"
    token.write_text("x" * 40)
    token.chmod(0o440)
    command = [sys.executable, "-m", "orchestrator", "serve", "--token-file", token, "--store", tmp_path / "none.db"]
    for place, said in ((tmp_path, "nothing is remembered"), (tmp_path / "other", "others can read")):
        env = {**os.environ, "CREDENTIALS_DIRECTORY": str(place)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
        assert done.returncode == 5 and said in done.stderr, done.stderr


def test_without_the_extra_it_says_which():
    code = "import sys; sys.modules['litestar'] = None; sys.argv = ['kdo', 'serve']\nfrom orchestrator.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 and "pip install 'kdump-orchestrator[web]'" in done.stderr
