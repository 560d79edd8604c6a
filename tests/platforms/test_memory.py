# SPDX-License-Identifier: Apache-2.0
"""What the classifier remembers never changes an answer and never grows; other tables; facts from lines of JSON."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from orchestrator.documents.base import encode, to_builtins
from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.errors import KnowledgeError
from orchestrator.fleet.collect import HostProblem, facts_from, stream
from orchestrator.platforms.classify import Classifier, classify
from orchestrator.platforms.memory import Matches, Room
from orchestrator.platforms.tables import PLATFORMS, SOURCES, compile_tables, load, load_from
from orchestrator.resources import data_path, read_text
from orchestrator.yamlmarks import load as load_yaml
from tests.platforms.hosttree import host_files

#: Texts that some row, condition or table of names looks for, wherever they are put.
TEXTS = (
    "", "debian", "rhel", "sonic", "SONiC", "coreos", "x86_64", "aarch64", "s390x", "i686", "Y", "N", "true", "kmsg",
    "loop=image-1/fs.squashfs initrd=\\x BOOT_IMAGE=y", "initrd=\\x", "5.15.0-microsoft-standard-WSL2", "amzn", "zipl",
    "Hypervisor detected: Xen HVM", "Memory Encryption Features active: AMD SEV", "Amazon EC2", "hypervisor", "kvm",
    "beginning of the kernel log", "/boot/grub2", "/boot/loader/entries", "/run/ostree-booted", "update-grub",
    "GRUB_ENABLE_BLSCFG=false", "pid:[4026531836]", "container-other", "KVMKVMKVM", "0x40000100", "257",
)  # fmt: skip
#: Dictionary keys and elements that no recorded host may have.
MORE: dict[tuple[str, ...], list[Any]] = {
    ("kernel", "sysctls"): [{"kernel/arch": "x86_64"}, {"kernel/arch": "aarch64"}],
    ("kernel", "module_params"): [{"kvm_amd.sev_snp": "Y"}, {"kvm_intel.tdx": "Y"}],
    ("files",): [{}, {"/etc/default/grub": {"text": "GRUB_ENABLE_BLSCFG=false\n"}}],
    ("probe", "unseen"): [[], [{"what": "beginning of the kernel log", "why": "overwritten"}]],
    ("boot", "markers"): [["/boot/grub2", "/boot/loader/entries"], ["/boot/extlinux"], ["/efi/loader", "/boot/grub"]],
    ("kernel", "efi"): [True, False, None],
    ("distribution", "ostree"): [True, False],
    ("signals", "smbios_vm"): [True, False, None],
    ("signals", "cpu_flags"): [None, [], ["hypervisor"]],
    ("signals", "buses"): [{}, {"vmbus": 3}, {"xen": 1}, {"vmbus": 1 << 90}],
}


def known(recorded) -> list[Facts]:
    return [recorded(p.stem) for p in host_files()]


def fresh(facts: Facts) -> Platform:
    """The platform by a classifier that has seen nothing before."""
    return Classifier(load()).classify(facts)


def _replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = _replaced(document[path[0]], path[1:], value)
    return copy


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, document
    items = document.items() if isinstance(document, dict) else enumerate(document[:4])
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from _places(value, (*path, key))
        else:
            yield (*path, key), value


def _changed_once(facts: Facts, rng: random.Random) -> Iterator[Facts]:
    """The same host with one thing changed, for every place of the document in turn."""
    document = to_builtins(facts)
    for path, value in _places(document):
        others: list[Any] = list(MORE.get(path, []))
        if isinstance(value, str) or value is None:
            others += rng.sample(TEXTS, 3)
        elif isinstance(value, bool):
            others += [not value]
        elif isinstance(value, int):
            others += [value + 1, 0]
        elif isinstance(value, list) and value:
            others += [[], value[1:], [*value, value[0]]]
            if all(isinstance(v, str) for v in value):
                others += [[*value, text] for text in rng.sample(TEXTS, 3)]
        elif path and isinstance(value, dict):
            others += [{k: v for k, v in value.items() if k != gone} for gone in list(value)[:3]]
        for other in others:
            try:
                yield msgspec.convert(_replaced(document, path, other), type=Facts)
            except msgspec.ValidationError:  # a text where a number belongs
                continue


def test_hosts_in_any_order_get_the_answer_of_a_fresh_classifier(recorded):
    hosts = known(recorded)
    wanted = [encode(fresh(f)) for f in hosts]
    memoised = Classifier(load())
    rng = random.Random(1)
    order = list(range(len(hosts))) * 3
    for _ in range(3):
        rng.shuffle(order)
        for i in order:
            assert encode(memoised.classify(hosts[i])) == wanted[i], hosts[i].host


def test_changing_any_one_thing_never_meets_an_old_answer(recorded):
    """Every place of the facts, not only those that are known to be read: a row may ask for any of them tomorrow."""
    memoised, rng = Classifier(load()), random.Random(2)
    different = 0
    for facts in known(recorded):
        before = memoised.classify(facts)
        forgetful = Classifier(load())
        for changed in _changed_once(facts, rng):
            forgetful._seen.clear()
            wanted = forgetful.classify(changed)
            assert memoised.classify(changed) == wanted, facts.host
            different += wanted != before
        assert memoised.classify(facts) == before
    assert different > 3000  # the changes were worth the name


def test_a_new_row_about_any_field_is_not_forgotten(recorded):
    """A field that no shipped row reads becomes part of what hosts are told apart by."""
    data = load_yaml(read_text(PLATFORMS), PLATFORMS).data
    sources = load_yaml(read_text(SOURCES), SOURCES).data["sources"]
    row = {"source": "kernel", "says": {"cloud": "acme"}, "rank": 45, "ref": "dmi-vendors"}
    flag = {"field": "machine", "present": True}
    rows = [
        {**row, "field": "kernel.cmdline", "contains": "acme=1"},
        {**row, "field": "kernel.modules", "equals": "acme"},
        {**row, **flag, "also": [{"field": "file./etc/acme", "equals": "acme"}]},
        {**row, **flag, "also": [{"field": "boot.tools", "equals": "acme"}]},
        {**row, **flag, "unless": [{"field": "boot.grub", "equals": "acme", "absent": True}]},
    ]
    host = recorded("qemu-kvm-debian12")
    document = to_builtins(host)
    changes: list[tuple[tuple[str, ...], Any]] = [
        (("kernel", "cmdline"), "acme=1"),
        (("kernel", "modules"), ["acme"]),
        (("files",), {"/etc/acme": {"text": "acme\n"}}),
        (("boot", "tools"), ["acme"]),
        (("boot", "grub", "path"), "acme"),
    ]
    for added, (path, value) in zip(rows, changes, strict=True):
        classifier = Classifier(compile_tables({**data, "rows": [*data["rows"], added]}, sources))
        assert classifier.classify(host).cloud == "", added
        changed = msgspec.convert(_replaced(document, path, value), type=Facts)
        assert classifier.classify(changed).cloud == "acme", added
        assert classifier.classify(host).cloud == "", added


def test_hosts_that_differ_in_nothing_that_counts_share_one_platform(recorded):
    document = to_builtins(recorded("qemu-kvm-debian12"))
    own = {"host": "other", "memory": {"total": 1 << 40}, "kernel": {**document["kernel"], "cmdline": "quiet"}}
    other = msgspec.convert(document | own, type=Facts)
    assert classify(recorded("qemu-kvm-debian12")) is classify(other)


@pytest.mark.parametrize(
    "more",
    [
        {"rows": [{"field": "machine", "present": True, "also": [{"field": "kernel_log", "contains": "acme"}]}]},
        {"rows": [{"field": "kernel_log", "contains": "acme"}]},
        {"rows": [{"field": "kernel_log", "lacks": "quiet"}]},
        {"unseen": [{"field": "kernel_log", "text": "nothing in the log"}]},
    ],
)
def test_tables_may_ask_anything_of_the_kernel_log(recorded, more):
    data = load_yaml(read_text(PLATFORMS), PLATFORMS).data
    sources = load_yaml(read_text(SOURCES), SOURCES).data["sources"]
    row = {"source": "kernel-log", "says": {"cloud": "acme"}, "rank": 45, "ref": "dmi-vendors"}
    rows = [{**row, **added} for added in more.get("rows", [])]
    tables = compile_tables(
        {**data, "rows": data["rows"] + rows, "unseen": data["unseen"] + more.get("unseen", [])}, sources
    )
    memoised, document = Classifier(tables), to_builtins(recorded("ec2-metal-graviton"))
    found = set()
    for log in (["quiet"], [], ["acme=1"], ["quiet", "other"], ["quiet", "acme=2"]):
        facts = msgspec.convert(_replaced(document, ("signals", "kernel_log"), log), type=Facts)
        wanted = Classifier(tables).classify(facts)
        assert memoised.classify(facts) == wanted
        found.add(encode(wanted))
    assert len(found) > 1


def test_what_the_kernel_log_quotes_does_not_tell_hosts_apart(recorded):
    document = to_builtins(recorded("qemu-kvm-debian12"))
    log = document["signals"]["kernel_log"]
    quoting = [
        _replaced(document, ("signals", "kernel_log"), [f"Command line: root=UUID={n} crashkernel=1G", *log])
        for n in range(3)
    ]
    classifier = Classifier(load())
    assert len({id(classifier.classify(msgspec.convert(d, type=Facts))) for d in quoting}) == 1


def test_texts_and_numbers_that_are_hard_to_write_are_survived():
    for signals in ({"machine": "\udcff"}, {"machine": "x86_64", "buses": {"vmbus": 1 << 99}}):
        facts = msgspec.convert({"signals": signals}, type=Facts)
        assert classify(facts) == fresh(facts)


# Flat memory


def _hostile(i: int) -> Facts:
    """A host that shares no value with any other, with as much to remember of it as there can be."""
    text = f"{i:06d}" + "\N{PILE OF POO}" * (i % 390)
    return msgspec.convert(
        {
            "signals": {
                "machine": ("x86_64", "aarch64", "s390x", "ppc64le", "riscv64", text)[i % 6],
                "cpuid": [{"leaf": f"0x4000{n}{i % 90:02d}", "signature": f"KVMKVMKVM{text}"} for n in range(5)],
                "cpu_flags": ["hypervisor", *(f"{n}{text}" for n in range(5))],
                "kernel_log": [f"Hypervisor detected: {h}{text}" for h in ("KVM", "VMware", "Microsoft Hyper-V")],
                "dmi": dict.fromkeys(("sys_vendor", "product_name", "bios_vendor", "board_vendor"), "QEMU" + text),
                "container": {"osrelease": text, "manager": text, "markers": [text]},
                **dict.fromkeys(("clocksource", "cpu_vendor", "lscpu_hypervisor"), text),
            },
            "distribution": {"id": text, "version_id": text},
        },
        type=Facts,
    )


def test_a_stream_of_hosts_without_anything_in_common_takes_no_more_memory(monkeypatch):
    monkeypatch.setattr(Room, "SIZE", 1 << 20)
    classifier = Classifier(load())
    for i in range(60):  # what is made once per architecture
        classifier.classify(_hostile(i))
    tracemalloc.start()
    try:
        for i in range(60, 1500):
            classifier.classify(_hostile(i))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20  # the estimates are no smaller than half of the truth
    assert 0 <= classifier._room.left <= Room.SIZE


def test_long_texts_and_long_keys_are_not_kept(monkeypatch):
    classifier = Classifier(load())
    for i in range(20):
        signals = {
            "machine": "x86_64",
            "kernel_log": [f"Hypervisor detected: KVM{i}" + "x" * 100_000],
            "clocksource": f"{i}" + "y" * 5000,
        }
        classifier.classify(msgspec.convert({"signals": signals}, type=Facts))
    assert not classifier._seen
    gatherer = classifier._of_arch("x86_64").gatherer
    assert not gatherer._seen_scalars
    assert all(len(text) <= Matches.LONGEST for table in gatherer._lists for text in table)


# Other tables


def test_other_tables_beside_the_shipped_ones(tmp_path, recorded):
    for name in (PLATFORMS, SOURCES):
        text = read_text(name).replace("{hypervisor: kvm}, rank: 100", "{hypervisor: xen}, rank: 100")
        (tmp_path / data_path(name).name).write_text(text)
    host, other = recorded("qemu-kvm-debian12"), load_from(tmp_path)
    for _ in range(2):
        assert classify(host).hypervisor == "kvm"
        assert classify(host, other).hypervisor == "xen"
    same = load_from(data_path(PLATFORMS).parent)
    assert all(classify(f) == classify(f, same) for f in known(recorded))


@pytest.mark.parametrize("text", [None, "rows: 1\n", "a: [\n", "{}\n"])
def test_tables_that_cannot_be_had_say_where(tmp_path, text):
    (tmp_path / data_path(SOURCES).name).write_text(read_text(SOURCES))
    if text is not None:
        (tmp_path / data_path(PLATFORMS).name).write_text(text)
    with pytest.raises(KnowledgeError) as caught:
        load_from(tmp_path)
    assert str(tmp_path) in caught.value.problems[0].where


# Lines of JSON


def test_every_form_of_a_line_gives_the_same_facts(tmp_path, recorded):
    hosts = known(recorded)
    forms = {
        "plain": [encode(f) for f in hosts],
        "entries": [encode({"format_version": "1.0", "host": f.host, "platform": {}, "facts": f}) for f in hosts],
        "whole": [encode({"format_version": "1.0", "hosts": [{"host": f.host, "facts": f} for f in hosts]})],
        "blank lines": [line for f in hosts for line in (encode(f), b"", b" \t")],
    }
    for name, lines in forms.items():
        path = tmp_path / name
        path.write_bytes(b"\n".join(lines) + b"\n")
        found = list(stream(str(path)))
        assert found == hosts, name
        assert {type(f) for f in found} == {Facts}


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"format_version": "9.0"}, True),
        ({"host": ""}, False),
        ({"host": "h" * 300}, False),
        ({"signals": {}}, False),
        ({"signals": {"machine": 1}}, True),
        ({"kernel": []}, True),
        ({"kernel": {"cmdline": "x" * 200_000}}, False),
        ({"kernel": {"cmdline": "x" * 300_000}}, True),
        ({"new": {"a": [1]}}, False),
    ],
)
def test_a_line_is_judged_like_a_document(tmp_path, recorded, change, refused):
    document = to_builtins(recorded("qemu-kvm-debian12")) | change
    path = tmp_path / "lines"
    path.write_bytes(encode(recorded("xen-dom0")) + b"\n" + encode(document) + b"\n")
    _, found = stream(str(path))
    assert found == facts_from(encode(document), document["host"])
    assert isinstance(found, HostProblem) is refused


def test_firmware_that_names_each_machine_does_not_make_each_its_own_case():
    """Asset tags and firmware versions match no row; the tag of a cloud does, and the vendor always counts."""
    import msgspec

    from orchestrator.platforms.classify import classify
    from tests.builders import debian

    def host(**dmi):
        facts = debian()
        signals = msgspec.structs.replace(facts.signals, dmi={"sys_vendor": "Dell Inc.", "product_name": "R650", **dmi})
        return msgspec.structs.replace(facts, signals=signals)

    one, two = host(chassis_asset_tag="A-1", bios_version="1.2"), host(chassis_asset_tag="A-2", bios_version="1.3")
    assert classify(one) is classify(two)
    azure = classify(host(chassis_asset_tag="7783-7084-3265-9085-8269-3286-77"))
    assert azure is not classify(one) and azure != classify(one)
    assert classify(host(sys_vendor="HPE")) != classify(one)
