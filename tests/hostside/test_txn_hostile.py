# SPDX-License-Identifier: Apache-2.0
"""A document that asks for what no plan may ask is refused as a whole, and nothing is touched."""

import copy
import os
import random
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
from kdo_txn_text import grub_text, sysctl_text  # noqa: E402
from test_txn_fake import DEFAULTS, NOTIFIERS, REL, SNIPPET, STATE, SYSCTL, Host, Tools, change, sha  # noqa: E402


def write(path=SNIPPET, text="# x\n", **more):
    return dict({"op": "write", "path": path, "text": text, "before_sha256": None}, **more)


def assign(key, value, path=DEFAULTS):
    return {"op": "assign", "path": path, "assignments": [[key, value]], "before_sha256": "0" * 64}


def knob(name, value="1"):
    return {"op": "knob", "path": "/proc/sys/kernel/" + name, "value": value, "before": "0"}


STEPS = [
    None, 1, "write", [], {}, {"op": None}, {"op": []}, {"op": "shell", "command": "id"}, {"op": "run"},
    {"op": "__init__"}, {"op": "write"}, write(command="id"), write(text=None), write(text=b"x".hex), write(text="x" * 10_000_000),
    write("/etc/passwd"), write("/etc/default/grub.d/../../passwd"), write("/etc/default/grub.d/./zz-kdump-orchestrator.cfg"),
    write("//etc/passwd"), write("etc/passwd"), write("/etc/default/grub.d/other.cfg"), write(SNIPPET + "\n"), write(SNIPPET + "\0"),
    write(["/etc/passwd"]), write(DEFAULTS), write(text="a\0b"), write(text="\x1b[31m"), write(text="\ud800"),
    write(mode="4755"), write(mode="0666"), write(mode=420), write(before_sha256="x"), write(before_sha256=1), write(before_sha256="from-package"),
    write(text="rm -rf /\n"), write(text='A="$(id)"\n'), write(text="A=`id`\n"), write(text="A=1 sh x\n"), write(text="PATH=/tmp\n"),
    write(SYSCTL, "kernel.core_pattern = |/tmp/x\n"), write(SYSCTL, "kernel.modprobe=/tmp/x\n"), write(SYSCTL, "net.ipv4.ip_forward = 1\n"),
    write(SYSCTL, "kernel.panic = 1 2\n"), write(SYSCTL, "kernel.kexec_load_disabled = 1\n"),
    {"op": "assign", "path": DEFAULTS, "assignments": "x", "before_sha256": "0" * 64},
    {"op": "assign", "path": DEFAULTS, "assignments": [["A"]], "before_sha256": "0" * 64},
    {"op": "assign", "path": DEFAULTS, "assignments": [["USE_KDUMP", "1"]] * 2, "before_sha256": "0" * 64},
    {"op": "assign", "path": DEFAULTS, "assignments": [["USE_KDUMP", "1"]], "before_sha256": "from-package"},
    assign("KDUMP_FAIL_CMD", "id"), assign("PATH", "/tmp"), assign("LD_PRELOAD", "/tmp/x"), assign("FTP_PASSWORD", "x"),
    assign("KDUMP_CMDLINE_APPEND", "$(id)"), assign("KDUMP_CMDLINE_APPEND", "a\nb"), assign("KDUMP_CMDLINE_APPEND", 'a" ; id ; "'),
    assign("KDUMP_KEXEC_ARGS", "; id"), assign("KDUMP_COREDIR", "/tmp; id"), assign("USE_KDUMP", "2"), assign("USE_KDUMP", 1),
    assign("KDUMP_CMDLINE_APPEND", "x" * 5000), assign("USE_KDUMP", "1", "/etc/default/grub"), assign("USE_KDUMP", "1", SNIPPET),
    {"op": "remove", "path": DEFAULTS, "before_sha256": "0" * 64}, {"op": "remove", "path": "/", "before_sha256": "0" * 64},
    {"op": "remove", "path": SNIPPET, "before_sha256": None},
    {"op": "package-install", "names": []}, {"op": "package-install", "names": "kdump-tools"}, {"op": "package-install", "names": ["kdump-tools\nx"]},
    {"op": "package-install", "names": ["kdump-tools-"]}, {"op": "package-install", "names": ["--allow-unauthenticated"]},
    {"op": "package-install", "names": ["netcat"]}, {"op": "package-install", "names": ["./x.deb"]}, {"op": "package-install", "names": [1]},
    {"op": "action", "name": "sh"}, {"op": "action"}, {"op": "action", "name": "grub-regenerate", "release": "x"}, {"op": "action", "name": ["x"]},
    {"op": "action", "name": "kdump-build-image"}, {"op": "action", "name": "kdump-build-image", "release": "../../x"},
    {"op": "action", "name": "kdump-build-image", "release": "-x"}, {"op": "action", "name": "kdump-build-image", "release": "6.1/x"},
    {"op": "action", "name": "kdump-build-image", "release": "6.1\n"}, {"op": "action", "name": "kdump-build-image", "release": "6..1"},
    {"op": "service-enable", "unit": "evil.service"}, {"op": "service-enable", "unit": ["kdump-tools.service"]},
    knob("core_pattern"), knob("modprobe"), knob("kexec_load_disabled"), knob("modules_disabled"), knob("../panic"), knob("panic", "|/x"),
    knob("panic", "1\n"), knob("panic", 1), knob("kexec_load_limit_panic"), knob("panic/../modprobe"), knob("randomize_va_space"),
    {"op": "knob", "path": NOTIFIERS, "value": "maybe", "before": "N"}, {"op": "knob", "path": "/sys/power/state", "value": "1", "before": "0"},
]  # fmt: skip

EXPECT = [
    None, {}, {"kind": "shell"}, {"kind": "value", "path": "/etc/shadow", "value": "x"}, {"kind": "value", "path": SNIPPET, "value": "x"},
    {"kind": "sha256", "path": "/etc/shadow", "value": "0" * 64}, {"kind": "sha256", "path": SNIPPET, "value": "x"},
    {"kind": "words", "path": "/etc/shadow", "line_prefix": "root"}, {"kind": "words", "path": "/boot/grub/grub.cfg", "line_prefix": 1},
    {"kind": "words", "path": "/boot/grub/grub.cfg", "line_prefix": "linux", "once": []},
    {"kind": "words", "path": "/boot/grub/grub.cfg", "line_prefix": "linux", "present": ["a b"]},
    {"kind": "words", "path": "/boot/grub/grub.cfg", "line_prefix": "linux", "present": [1]},
    {"kind": [], "path": SNIPPET},
]  # fmt: skip

WHOLE = [
    None, 1, "x", [], {}, {"steps": []}, {"format_version": "2.0"}, {"format_version": 1.0}, {"id": "x"}, {"id": "AB" * 32}, {"id": "../" * 21 + "x"},
    {"id": None}, {"title": "a\nb"}, {"title": 1}, {"title": "x" * 1000}, {"steps": {}}, {"steps": []}, {"steps": [write()] * 2},
    {"steps": [write()] * 100}, {"expect": {}}, {"command": "id"}, {"expect": [{"kind": "value", "path": NOTIFIERS, "value": "N"}] * 100},
]  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("host"))
    host.before = host.picture()
    return host


def refused(host, document):
    for check in (True, False):
        tools = Tools(host)
        result = kdo_txn.run(document, root=host.root, runner=tools, check=check)
        assert result["state"] == "refused" and not result["changed"], result
        assert result["error"]["what"] == "the change document is not valid", result
        assert len(str(result)) < 4000
        assert tools.calls == [] and not host.here(STATE)
    assert host.picture() == host.before


@pytest.mark.parametrize("index", range(len(STEPS)))
def test_steps(host, index):
    refused(host, change(host, steps=[STEPS[index]], expect=[]))


@pytest.mark.parametrize("index", range(len(EXPECT)))
def test_expectations(host, index):
    refused(host, change(host, expect=[EXPECT[index]]))


@pytest.mark.parametrize("index", range(len(WHOLE)))
def test_documents(host, index):
    part = WHOLE[index]
    refused(host, change(host, **part) if isinstance(part, dict) and len(part) == 1 else part)


def test_deep_documents(host):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    refused(host, change(host, expect=deep))
    while deep:
        deep = deep.pop()


def test_random_damage_never_raises(host):
    luck = random.Random(7)
    values = [
        None,
        0,
        -1,
        1.5,
        True,
        "",
        "x",
        "\n",
        "../..",
        [],
        {},
        [[]],
        {"a": 1},
        "x" * 500,
        "/etc/shadow",
        "\ud800",
    ]
    for _ in range(1500):
        document = copy.deepcopy(change(host))
        for _ in range(luck.randint(1, 3)):
            place = document
            while True:
                keys = list(place) if isinstance(place, dict) else list(range(len(place)))
                if not keys:
                    break
                key = luck.choice(keys)
                if isinstance(place[key], (dict, list)) and place[key] and luck.random() < 0.8:
                    place = place[key]
                    continue
                place[key] = luck.choice(values)
                break
        result = kdo_txn.run(document, root=host.root, runner=Tools(host), check=True)
        assert result["state"] in ("refused", "check")
        if result["error"]:
            assert result["error"]["what"] != "the transaction cannot go on", (document, result)
    assert host.picture() == host.before


def test_what_a_snippet_may_do():
    good = [
        'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=512M-:192M"\n',
        'new=""\nfor arg in $GRUB_CMDLINE_LINUX_DEFAULT; do\n  case "$arg" in\n    crashkernel=*|nokdump) ;;\n    *) new="$new $arg" ;;\n  esac\ndone\n'
        'GRUB_CMDLINE_LINUX_DEFAULT="${new# } crashkernel=1G"\nunset arg new\n',
        "for a in $X; do case $a in crashkernel=*) : ;; *) n=\"${n:+$n }$a\";; esac; done  # why\n",
        'set -f\nif [ -n "$n" ]; then GRUB_CMDLINE_LINUX="$n"; fi\nset +f\n',
    ]  # fmt: skip
    for text in good:
        assert grub_text(text) is None, text
    bad = [
        "rm -rf /", "A=x rm -rf /", "A=`id`", 'A="$(id)"', "for a in x; do rm; done", "case x in a) rm;; esac", "if rm; then :; fi", ". /tmp/x",
        "eval x", 'A="x\nid\n"', "x | sh", "f() { id; }", "PATH=/tmp", "GRUB_DEVICE=x", "A=1; sh /x", "a) sh x", "[ -e x ] || sh", "(id)", 'A="x" B=c id',
        "a)id", "case $x in a) id", "while id; do :; done", "A=1 > /etc/passwd", "export PATH=/x", "exec sh", "source x", "trap id EXIT", "id", "\\id", "'id'", '"id"',
        "$x", "${x}", "A=1\\\nid", "alias a=id", "A=$'x'", "grub_mkconfig_dir=/tmp", "BASH_ENV=/x", "IFS=x",
    ]  # fmt: skip
    for text in bad:
        assert grub_text(text), text


def test_what_sysctls_may_be():
    assert sysctl_text("# x\n\n; y\nkernel.panic = 10\nkernel/panic_on_oops=1\n-kernel.hung_task_panic = 1\n") is None
    for text in (
        "kernel.core_pattern=1",
        "vm.x=1",
        "kernel.panic=|x",
        "kernel.panic=1\nkernel.modprobe=0",
        "kernel.*=1",
        "x",
    ):
        assert sysctl_text(text)


def test_real_tree_needs_a_runner_only_when_it_is_not_the_host(host):
    assert kdo_txn.run(change(host), root=host.root)["error"]["what"] == "commands cannot be run"
    assert (
        kdo_txn.run(change(host), root=host.root, state_dir="x", runner=Tools(host))["error"]["what"]
        == "the state directory is not valid"
    )
    assert sha("x") and REL
