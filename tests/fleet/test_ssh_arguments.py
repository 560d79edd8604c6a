# SPDX-License-Identifier: Apache-2.0
"""How a host is reached: ssh arguments, ssh_config and inventory variables, read as OpenSSH and Ansible read them, or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.fleet import sshconfig
from orchestrator.fleet.endpoint import Defaults, defaults, finished, route
from orchestrator.fleet.inventory import Host
from orchestrator.fleet.sshconfig import FOLLOWED, Unsupported, arguments, resolve

NONE = Defaults({})
WORD = st.text("abcdefgh0123456789.-_", min_size=1, max_size=12).filter(lambda w: not w.startswith("-"))


def way(**variables):
    return route(Host("web1", (), {"ansible_ssh_common_args": "-F none", **variables}), NONE)


def place(**variables):
    return way(**variables).endpoint


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        options, _ = arguments(text)
    except Unsupported as e:
        assert str(e)
    else:
        assert all(keyword and words for keyword, words in options)


@given(st.lists(st.tuples(st.sampled_from(sorted(FOLLOWED)), WORD), max_size=6), st.integers(0, 3))
def test_all_spellings_of_an_option_are_the_same(pairs, how):
    forms = ["-o {}={}", "-o{}={}", "-o '{} {}'", "-o '{} = {}'"]
    text = " ".join(forms[how].format(k, v) for k, v in pairs)
    assert arguments(text)[0] == tuple((k, (v,)) for k, v in pairs)


@given(st.lists(st.tuples(st.sampled_from("iJlp"), WORD), max_size=5))
def test_short_options_with_and_without_a_blank(pairs):
    assert arguments(" ".join(f"-{k} {v}" for k, v in pairs)) == arguments(" ".join(f"-C{k}{v}" for k, v in pairs))


@given(st.text(max_size=40))
def test_a_quoted_path_survives(path):
    if path.strip() and not any(c in path for c in "\n\r#'\"\\") and path == path.strip():
        assert arguments(shlex.quote(f'-oIdentityFile="{path}"'))[0] == (("identityfile", (path,)),)


OPENSSH = {
    "hostname": st.sampled_from(["10.0.0.1", "%h.example.net", "a.example"]),
    "port": st.integers(1, 65535).map(str),
    "user": st.sampled_from(["root", "admin", "kdo"]),
    "hostkeyalias": st.sampled_from(["fleet", "%h"]),
    "connecttimeout": st.integers(1, 100).map(str),
    "identityfile": st.sampled_from(["/k/one", "/k/%h", "~/.ssh/id", "/k/%r_%p"]),
    "userknownhostsfile": st.sampled_from(["/k/known", "~/.ssh/%h", "/k/a /k/b"]),
    "identitiesonly": st.sampled_from(["yes", "no"]),
    "addressfamily": st.sampled_from(["inet", "inet6", "any"]),
    "serveraliveinterval": st.just("5"),
    "controlmaster": st.just("auto"),
}
LINE = st.one_of(
    *(values.map(lambda v, k=k: f"{k} {v}") for k, values in OPENSSH.items()),
    st.sampled_from(["Host *", "Host web1", "Host web* !web1", "Host db?", "Host WEB1", "Match all", "Match final all",
                     "# a comment", "", "Host 10.0.0.1 *.example.net"]),
)  # fmt: skip


@pytest.mark.skipif(not shutil.which("ssh"), reason="the OpenSSH client is not installed here")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(LINE, max_size=14),
    st.lists(
        st.sampled_from(["-p 5", "-l me", "-o Port=7", "-i /k/none", "-i /etc/passwd", "-o User=you"]), max_size=3
    ),
)
def test_openssh_reads_the_same(tmp_path, lines, given_here):
    """``ssh -G`` tells what OpenSSH itself makes of a configuration and of arguments."""
    config = tmp_path / "config"
    config.write_text("\n".join(lines) + "\n")
    sshconfig.read_config.cache_clear()
    text = " ".join(given_here)
    found = finished("web1", arguments(text)[0], str(config))
    done = subprocess.run(["ssh", "-G", "-F", str(config), *shlex.split(text), "web1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value)
    assert (found.host, str(found.port), found.user) == (said["hostname"][0], said["port"][0], said["user"][0])
    assert found.known_as == said.get("hostkeyalias", [""])[0].replace("%h", found.host)
    assert found.identities_only == (said["identitiesonly"][0] == "yes")
    assert found.family == said["addressfamily"][0]
    if "connecttimeout" in said and said["connecttimeout"][0] != "none":
        assert found.connect_timeout == int(said["connecttimeout"][0])
    home = str(sshconfig.home())
    tokens = {"%h": found.host, "%r": found.user, "%p": str(found.port), "~": home}

    def plain(path: str) -> str:
        for token, value in tokens.items():
            path = path.replace(token, value)
        return path

    if any(line.startswith("identityfile") for line in lines) or "-i /etc/passwd" in given_here:
        wanted = [plain(p) for p in said["identityfile"]]
        assert (
            list(found.identities) == wanted or len(found.identities) == 7
        )  # in a block that did not match: the defaults
    assert list(found.known_hosts) == [
        plain(p) for k in ("userknownhostsfile", "globalknownhostsfile") for p in said[k][0].split()
    ]


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"ansible_host": "{{ x }}"}, "template"),
        ({"ansible_user": "{% if 1 %}"}, "template"),
        ({"ansible_host": {"__ansible_vault": "x"}}, "no plain text"),
        ({"ansible_password": "x"}, "ansible_password"),
        ({"ansible_ssh_pass": "x"}, "ansible_ssh_pass"),
        ({"ansible_become_password": "x"}, "ansible_become_password"),
        ({"ansible_become": True, "ansible_become_method": "su"}, "su"),
        ({"ansible_become": True, "ansible_become_user": "admin"}, "become_user"),
        ({"ansible_connection": "local"}, "connection local"),
        ({"ansible_connection": "community.docker.docker"}, "docker"),
        ({"ansible_host": "a", "ansible_ssh_host": "b"}, "different"),
        ({"ansible_shell_type": "powershell"}, "shell"),
        ({"ansible_python_interpreter": "/usr/bin/env python3"}, "plain path"),
        ({"ansible_python_interpreter": "/bin/sh;reboot"}, "plain path"),
        ({"ansible_host_key_checking": False}, "host_key"),
        ({"ansible_ssh_extra_args": "-o StrictHostKeyChecking=no"}, "StrictHostKeyChecking"),
        ({"ansible_ssh_extra_args": "-o StrictHostKeyChecking=accept-new"}, "StrictHostKeyChecking"),
        ({"ansible_ssh_extra_args": "-o ProxyCommand='nc %h %p'"}, "proxycommand"),
        ({"ansible_ssh_extra_args": "-o Port"}, "Port"),
        ({"ansible_ssh_extra_args": "-W host:22"}, "-W"),
        ({"ansible_ssh_extra_args": "reboot"}, "no option"),
        ({"ansible_ssh_extra_args": "-o IdentityFile=keys/id"}, "relative"),
        ({"ansible_ssh_extra_args": "-o 'UserKnownHostsFile=${HOME}/x'"}, "environment"),
        ({"ansible_ssh_extra_args": "-o VerifyHostKeyDNS=yes"}, "verifyhostkeydns"),
        ({"ansible_ssh_extra_args": "-J a,b@,c"}, "jump"),
        ({"ansible_ssh_extra_args": "'"}, "quotes"),
        ({"ansible_port": "many"}, "Port"),
        ({"ansible_host": "-oProxyCommand=x"}, "dash"),
    ],
)
def test_what_is_left_to_ansible(variables, why):
    with pytest.raises(Unsupported, match=why):
        way(**variables)


def test_the_order_is_that_of_ansible():
    found = place(ansible_ssh_args="-o User=first", ansible_user="second", ansible_ssh_extra_args="-l third -p 5")
    assert (found.user, found.port) == ("first", 5)
    assert place(ansible_user="second", ansible_ssh_extra_args="-l third").user == "second"


def test_become_and_interpreter():
    assert way(ansible_become="yes").become and not way(ansible_become="false").become
    assert route(Host("h", (), {"ansible_ssh_common_args": "-F none"}), NONE, become=True).become
    assert way(ansible_python_interpreter="auto_silent").interpreter == "python3"
    assert way(ansible_python_interpreter="/usr/bin/python3.6").interpreter == "/usr/bin/python3.6"


def test_jumps_one_after_another():
    found = place(ansible_ssh_extra_args="-J a@one:5,[::1]:7,three").jumps
    assert [(j.host, j.port) for j in found] == [("one", 5), ("::1", 7), ("three", 22)] and found[0].user == "a"


def test_a_configuration_with_conditions_is_left_to_ssh(tmp_path):
    for number, text in enumerate(["Match exec true\n Port 5\n", "Include {0}\n", "Include {0}/*\nPort 5\n"]):
        config = tmp_path / f"config{number}"
        config.write_text(text.format(config))
        if number < 2:
            with pytest.raises(Unsupported):
                resolve("h", (), str(config))
        else:
            assert resolve("h", (), str(config)).get("port") == "5"


def test_a_configuration_that_others_can_write_is_left_to_ssh(tmp_path):
    config = tmp_path / "config"
    config.write_text("Port 5\n")
    config.chmod(0o666)
    with pytest.raises(Unsupported, match="written by others"):
        resolve("h", (), str(config))


def test_settings_of_ansible(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("ANSIBLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert defaults().values == {}
    (tmp_path / "ansible.cfg").write_text(
        "[defaults]\nremote_user=admin\nprivate_key_file=/k/id\n[ssh_connection]\nssh_args=-F none -J jump\n"
        "[privilege_escalation]\nbecome=True\n"
    )
    found = route(Host("web1"), defaults())
    assert (found.endpoint.user, found.endpoint.identities, found.become) == ("admin", ("/k/id",), True)
    assert found.endpoint.jumps[0].host == "jump"
    monkeypatch.setenv("ANSIBLE_REMOTE_USER", "other")
    assert route(Host("web1"), defaults()).endpoint.user == "other"
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", "False")
    with pytest.raises(Unsupported, match="host keys are always checked"):
        route(Host("web1"), defaults())
