# SPDX-License-Identifier: Apache-2.0
"""Will the dump arrive? What can be known of the target before the crash, without writing to it or logging in anywhere."""

from __future__ import annotations

import posixpath
import re

from orchestrator.checks.base import Answer, Subject, check
from orchestrator.crashkernel import format_size
from orchestrator.documents.decision import SSH_KEY, DumpTarget
from orchestrator.documents.facts import Target

_NETWORK_FS = re.compile(r"(nfs|cifs|smb|ceph|glusterfs|fuse\.sshfs|9p|afs|lustre)")
_ONLINE = re.compile(r"/(?:etc|usr/lib)/systemd/system/network-online\.target\.wants/(.+)")
_NETWORKD = "/etc/systemd/system/sockets.target.wants/systemd-networkd.socket"
_STAYS = "the dump stays on this machine"
_NO_LOGIN = "no login is needed"


def _wish(s: Subject) -> DumpTarget:
    """Where the dump goes: as the policy says, else as the host's own configuration says."""
    wish = s.decision.settings.target
    return wish if wish.kind else s.capture.place


def _size(value: int) -> str:
    return format_size(value >> 20 << 20)


def _seen(s: Subject, path: str) -> Target | None:
    return next((t for t in s.facts.targets if t.path == path), None)


@check("target", "the dump target is there and has room")
def target(s: Subject) -> Answer:
    """A directory or device: is it there, what lies below it, and free space against the RAM (a filtered dump is smaller, so less than a quarter of the RAM fails, less than all of it warns). A server: is its client installed."""
    wish = _wish(s)
    if wish.kind in ("nfs", "ssh"):
        return _client(s, wish)
    if wish.kind in ("filesystem", "raw"):
        return _device(s, wish)
    if wish.kind == "virtiofs":
        fix = "mount -t virtiofs shows whether the hypervisor shares it, and how much room there is"
        return (
            "warn",
            f"{wish.place}: a tag is only seen by mounting it, and its room is the hypervisor's business",
            fix,
        )
    return _directory(s, wish.path or s.capture.target)


def _client(s: Subject, wish: DumpTarget) -> Answer:
    program, package = {"nfs": ("mount.nfs", "nfs-common"), "ssh": ("ssh", "openssh-client")}[wish.kind]
    if program not in s.facts.boot.tools:
        package = package if s.platform.family == "debian" else {"nfs": "nfs-utils", "ssh": "openssh"}[wish.kind]
        return "fail", f"{wish.place}: there is no {program}", f"install {package}"
    return "pass", f"{wish.place}: {program} is there; its room is the server's business"


def _directory(s: Subject, path: str) -> Answer:
    t = _seen(s, path)
    if t is None:
        return "unknown", f"{path} was not looked at"
    if not t.exists:
        return "fail", f"{path} does not exist", f"mkdir -p {path}"
    if t.read_only:
        return "fail", f"{path} is on a read-only filesystem ({t.mount_point})", "choose another target"
    if _NETWORK_FS.match(t.fs_type) and s.platform.family == "debian":
        why = f"{path} is on {t.fs_type} ({t.mount_point}): the capture kernel does not mount what remote-fs.target mounts"
        return "fail", why, "name the server: target: {nfs: server:/export}"
    if t.free is None or s.ram is None:
        return "unknown", f"{path}: free space or RAM is not known"
    text = f"{path} on {t.fs_type or 'unknown'} ({t.mount_point}): {_size(t.free)} free, {format_size(s.ram)} RAM"
    return _below(t, text) or _room(text, t.free, s.ram)


def _device(s: Subject, wish: DumpTarget) -> Answer:
    t = _seen(s, wish.place)
    if t is None:
        return "unknown", f"{wish.place} was not looked at"
    if not t.exists:
        return "fail", f"no block device of this host is {wish.place}", "look at lsblk -f"
    name = wish.place if t.source in ("", wish.place) else f"{wish.place} ({t.source})"
    if wish.kind == "raw":
        return _raw(s, t, name)
    if not t.fs_type or t.fs_type == "crypto_LUKS":
        return "fail", f"{name} holds no filesystem but {t.fs_type or 'nothing that is known'}", "look at lsblk -f"
    if t.read_only:
        return "fail", f"{name} is mounted read-only at {t.mount_point}", "mount it for writing"
    if t.mount_point and t.free is not None and s.ram is not None:
        text = f"{name}: {t.fs_type}, mounted at {t.mount_point}, {_size(t.free)} free, {format_size(s.ram)} RAM"
        return _below(t, text) or _room(text, t.free, s.ram)
    if t.size is None or s.ram is None:
        return "unknown", f"{name}: its size or the RAM is not known"
    text = f"{name}: {t.fs_type}, not mounted now, {_size(t.size)} in size, {format_size(s.ram)} RAM"
    return _below(t, text) or _room(text, t.size, s.ram)


def _raw(s: Subject, t: Target, name: str) -> Answer:
    if t.mount_point:
        return "fail", f"{name} is mounted at {t.mount_point}: a dump would overwrite it", "name another partition"
    if t.fs_type:
        return "fail", f"{name} holds {t.fs_type}, which a dump would overwrite", f"wipefs -a {t.source}, if it may go"
    if t.size is None or s.ram is None:
        return "unknown", f"{name}: its size or the RAM is not known"
    text = f"{name}: {_size(t.size)} in size, {format_size(s.ram)} RAM"
    return _below(t, text) or _room(text, t.size, s.ram)


def _below(t: Target, text: str) -> Answer | None:
    """What the capture kernel has to do before it reaches the device."""
    locked = [d.name for d in t.chain if d.dm_kind == "CRYPT"]
    if locked:
        return "warn", f"{text}; it is encrypted ({', '.join(locked)})", "the capture kernel must be able to unlock it"
    remote = sorted({d.network for d in t.chain if d.network})
    if remote:
        fix = "the capture kernel must bring up the network and log in to it first"
        return "warn", f"{text}; it is reached over a network ({', '.join(remote)})", fix
    return None


def _room(text: str, room: int, ram: int) -> Answer:
    if room < ram // 4:
        return "fail", text, "make room, or choose another target"
    return ("pass" if room >= ram else "warn"), text


@check("target-network", "the capture kernel has the network that the target needs")
def target_network(s: Subject) -> Answer:
    """The drivers of the network interfaces, and on Debian, where the capture kernel starts one unit only, what brings up the network for network-online.target."""
    if not _remote(s):
        return "skip", _STAYS
    if not s.facts.network:
        return "fail", "there is no network interface", "a dump to a server needs one"
    drivers = ", ".join(f"{n.name} ({n.driver or 'driver not known'})" for n in s.facts.network)
    if s.platform.family != "debian":
        return "skip", f"{drivers}; the capture image brings its own network"
    wanted = sorted(m[1] for path in s.facts.files if (m := _ONLINE.fullmatch(path)))
    masked = {w for w in wanted if _link(s, f"/etc/systemd/system/{w}") == "/dev/null"}
    starts = [w for w in wanted if w not in masked]
    if _NETWORKD in s.facts.files:
        starts.append("systemd-networkd.socket")
    if not starts:
        why = f"masked: {', '.join(sorted(masked))}" if masked else "it wants nothing"
        fix = "systemctl enable the unit that waits for the network: systemd-networkd, NetworkManager-wait-online, networking"
        return "fail", f"{drivers}; nothing starts the network with network-online.target ({why})", fix
    verdict = "pass" if any(n.driver for n in s.facts.network) else "warn"
    return verdict, f"{drivers}; started by {', '.join(starts)}"


def _remote(s: Subject) -> bool:
    wish = _wish(s)
    if wish.kind in ("nfs", "ssh"):
        return True
    if wish.kind == "virtiofs":
        return False
    t = _seen(s, wish.place if wish.kind in ("filesystem", "raw") else wish.path or s.capture.target)
    return t is not None and (bool(_NETWORK_FS.match(t.fs_type)) or any(d.network for d in t.chain))


def _link(s: Subject, path: str) -> str:
    file = s.facts.files.get(path)
    return file.link if file is not None else ""


@check("target-key", "the key for the dump server is there")
def target_key(s: Subject) -> Answer:
    """The private key's presence, owner and mode; ssh refuses one that others can read. It is never read."""
    wish = _wish(s)
    if wish.kind != "ssh":
        return "skip", _NO_LOGIN
    path = wish.key or SSH_KEY
    keys = s.facts.ssh.keys
    if keys is None:
        return "unknown", f"{path} was not looked at", "name the server in the policy: target: {ssh: user@server}"
    key = next((k for k in keys if k.path == path), None)
    if key is None:
        others = ", ".join(posixpath.basename(k.path) for k in keys)
        return "fail", f"{path} is not there" + (f" (there are: {others})" if others else ""), "kdo apply makes it"
    if key.uid != 0 or int(key.mode or "0", 8) & 0o077:
        return (
            "fail",
            f"{path} has mode {key.mode} and owner {key.uid}: ssh refuses it",
            f"chown root {path}; chmod 600 {path}",
        )
    return "pass", f"{path}, mode {key.mode}" + (f", {key.public.split()[0]}" if key.public else "")


@check("target-host-key", "the dump server's host key is known")
def target_host_key(s: Subject) -> Answer:
    """known_hosts of root and of the system. Without an entry ssh asks a question that nobody answers in the capture kernel."""
    wish = _wish(s)
    if wish.kind != "ssh":
        return "skip", _NO_LOGIN
    server = wish.place.rpartition("@")[2]
    known = s.facts.ssh.known.get(server)
    if known is None:
        return "unknown", f"known_hosts was not looked at for {server}"
    if wish.host_key and wish.host_key not in known:
        kind = wish.host_key.split()[0]
        other = [k for k in known if k.split()[0] == kind]
        if other:
            return (
                "fail",
                f"{server} has another {kind} key in known_hosts than the policy says",
                "find out which is right",
            )
        return "fail", f"{server}: the policy's {kind} key is not in known_hosts", "kdo apply"
    if not known:
        fix = "give target.host_key, or put the key into /root/.ssh/known_hosts after checking it"
        return "fail", f"{server} is not in known_hosts: the dump would wait for an answer to ssh's question", fix
    return "pass", f"{server}: {', '.join(sorted({k.split()[0] for k in known}))}"


@check("target-login", "the dump server lets the host in")
def target_login(s: Subject) -> Answer:
    """A login on another machine, so only on request: ``kdo validate --probe-target`` lets each host log in as its capture kernel will, and asks whether the account may write there."""
    wish = _wish(s)
    if wish.kind != "ssh":
        return "skip", _NO_LOGIN
    answer = s.facts.ssh.login
    if answer is None:
        return "skip", f"{wish.place}: not tried", "kdo validate --probe-target"
    if answer:
        return "fail", f"{wish.place}: {answer}", f"kdo target push {s.facts.host} --to {wish.place}"
    return "pass", f"{wish.place}: the login works, and the account can write there"
