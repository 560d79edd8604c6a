# SPDX-License-Identifier: Apache-2.0
"""Facts: what one host says of itself, raw. Nothing in here is a conclusion.

The host side (``playbooks/module_utils/kdo_probe.py``) makes this document; recorded documents are read back from
files. All of it is untrusted input: it is decoded into these types with hard limits, never templated, never run.
A field that the probe could not see is ``None`` (or empty) and has an entry in ``probe.unseen`` that says why.
Sizes are bytes unless the name says otherwise; times are nanoseconds since the epoch.
"""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document


class Unseen(Document, frozen=True, kw_only=True):
    """Something that the probe wanted to read and could not."""

    what: str
    why: str


class ProbeInfo(Document, frozen=True, kw_only=True):
    """How the facts were collected."""

    version: str = "0"
    root: str = "/"  # "/" = a live host; anything else = a tree
    euid: int | None = None
    python: str = ""
    udev_source: str = ""  # pyudev | udevadm | tree
    unseen: list[Unseen] = []


class Inventory(Document, frozen=True, kw_only=True):
    """What the inventory says of the host: groups and the operator's tags (``kdo_tags``)."""

    groups: list[str] = []
    tags: list[str] = []


class CpuidLeaf(Document, frozen=True, kw_only=True):
    """One CPUID hypervisor leaf: number as hexadecimal text, 12 signature characters with trailing NULs removed."""

    leaf: str
    signature: str
    max_leaf: str = ""


class AcpiTable(Document, frozen=True, kw_only=True):
    """Identity of one ACPI table; ``hypervisor_id`` is FADT bytes 268..275 (revision 6 and later)."""

    table: str
    oem_id: str = ""
    oem_table_id: str = ""
    hypervisor_id: str = ""


class DeviceTree(Document, frozen=True, kw_only=True):
    """The marks that a device tree holds (``/proc/device-tree``)."""

    present: bool = False
    model: str = ""
    compatible: list[str] = []
    hypervisor_compatible: list[str] = []
    nodes: list[str] = []  # names of interest found at the top: ibm,partition-name, ibm,opal, fw-cfg@…, hmc-managed?, …


class XenMarks(Document, frozen=True, kw_only=True):
    """``/sys/hypervisor`` and ``/proc/xen``."""

    type: str = ""
    guest_type: str = ""
    features: str = ""
    initdomain: bool | None = None
    capabilities: str = ""
    version: str = ""


class DetectVirt(Document, frozen=True, kw_only=True):
    """What ``systemd-detect-virt`` answers, with systemd's version (its errors depend on it)."""

    vm: str = ""
    container: str = ""
    cvm: str = ""
    version: str = ""


class ContainerMarks(Document, frozen=True, kw_only=True):
    """Namespace identities and marker files."""

    pid_ns: str = ""
    user_ns: str = ""
    markers: list[str] = []  # paths that exist: /.dockerenv, /run/.containerenv, …
    manager: str = ""  # /run/host/container-manager, /run/systemd/container or PID 1's $container
    osrelease: str = ""  # /proc/sys/kernel/osrelease (WSL names itself there)


class Signals(Document, frozen=True, kw_only=True):
    """All that can tell which platform this is."""

    machine: str | None = None  # uname -m
    cpuid: list[CpuidLeaf] = []
    cpuid_source: str = ""  # device | instruction | lscpu | recorded | ""
    lscpu_hypervisor: str = ""
    cpu_vendor: str = ""
    cpu_flags: list[str] | None = None  # those of interest that are set; None = /proc/cpuinfo not seen
    cpu_platform: str = ""  # powerpc "platform", s390 "machine"
    kernel_log: list[str] = []  # lines of interest, in order
    kernel_log_source: str = ""  # kmsg | file | recorded | "" (not seen)
    dmi: dict[str, str] = {}
    smbios_vm: bool | None = None  # SMBIOS type 0, extension byte 2, bit 4
    acpi: list[AcpiTable] = []
    device_tree: DeviceTree = DeviceTree()
    xen: XenMarks = XenMarks()
    sysinfo: list[str] = []  # s390 /proc/sysinfo: "VM00 Control Program: …", "LPAR Number: …"
    buses: dict[str, int] = {}  # devices per bus of interest: vmbus, virtio, xen, …
    devices: list[str] = []  # device nodes and paths of interest that exist: /dev/sev-guest, /dev/mshv, …
    clocksource: str = ""
    clocksources: list[str] = []
    detect_virt: DetectVirt = DetectVirt()
    container: ContainerMarks = ContainerMarks()


class Kernel(Document, frozen=True, kw_only=True):
    """The running kernel and what it was built with."""

    release: str = ""
    version: str = ""
    cmdline: str = ""  # /proc/cmdline, secrets blanked
    config: dict[str, str] = {}  # CONFIG_ names of interest without the prefix: y, m, n or a value
    config_source: str = ""
    symbols: list[str] | None = None  # those of interest in /proc/kallsyms; None = not readable
    crash_shutdown: str | None = None  # symbol that machine_ops.crash_shutdown points to (x86, root, /proc/kcore)
    post_notifiers: str | None = None  # /sys/module/kernel/parameters/crash_kexec_post_notifiers: Y or N
    sysctls: dict[str, str] = {}
    module_params: dict[str, str] = {}  # "kvm_amd.sev_snp": "Y"
    modules: list[str] | None = None  # loaded modules
    booted: int | None = None  # when it was started
    lockdown: str = ""  # text of /sys/kernel/security/lockdown
    efi: bool | None = None
    secure_boot: int | None = None  # byte 5 of the SecureBoot variable
    setup_mode: int | None = None


class Kexec(Document, frozen=True, kw_only=True):
    """State of the crash kernel slot."""

    supported: bool | None = None  # the kernel has /sys/kernel/kexec_crash_loaded or its newer path
    crash_loaded: bool | None = None
    crash_size: int | None = None
    load_disabled: int | None = None
    limit_panic: int | None = None
    limit_reboot: int | None = None
    crash_regions: list[int] = []  # sizes of "Crash kernel" in /proc/iomem
    fadump: dict[str, str] = {}
    on_panic: str = ""  # s390 /sys/firmware/shutdown_actions/on_panic
    notifier_setters: list[str] = []  # tmpfiles.d lines that write crash_kexec_post_notifiers: "path: line"


class Memory(Document, frozen=True, kw_only=True):
    """Sizes in bytes."""

    total: int | None = None  # MemTotal
    system_ram: int | None = None  # sum of "System RAM" in /proc/iomem
    page_size: int | None = None
    cpus: int | None = None


class BlockDevice(Document, frozen=True, kw_only=True):
    """One device on the way from the dump target's filesystem down to hardware."""

    name: str
    devtype: str = ""
    driver: str = ""
    dm_kind: str = ""  # CRYPT, LVM, mpath … (prefix of the device-mapper UUID)
    fs_type: str = ""
    network: str = ""  # iscsi, nvme, nbd, rbd or drbd where it is reached over a network


class Target(Document, frozen=True, kw_only=True):
    """A directory or a device where a dump may go, as it is now. ``path`` is the policy's word for it."""

    path: str
    exists: bool = False
    mount_point: str = ""
    source: str = ""
    fs_type: str = ""
    fs_uuid: str = ""
    fs_label: str = ""
    read_only: bool | None = None
    size: int | None = None
    free: int | None = None
    chain: list[BlockDevice] = []


class NetworkDevice(Document, frozen=True, kw_only=True):
    """One network interface (no addresses)."""

    name: str
    driver: str = ""


class SshKey(Document, frozen=True, kw_only=True):
    """A key file of root. The private half is never read."""

    path: str
    mode: str = ""  # "0600"
    uid: int = 0
    public: str = ""  # type and base64 of the .pub file beside it


class Ssh(Document, frozen=True, kw_only=True):
    """What a login at a dump server needs; looked at only where a policy sends dumps to one."""

    keys: list[SshKey] | None = None  # None = not looked at
    login: str | None = None  # what came of a login that was asked for: "" = it worked; None = not tried
    known: dict[str, list[str]] = {}  # server → its host keys in root's and the system's known_hosts: type and base64


class Distribution(Document, frozen=True, kw_only=True):
    """``/etc/os-release``."""

    id: str = ""
    id_like: list[str] = []
    version_id: str = ""
    codename: str = ""
    name: str = ""
    variant_id: str = ""
    ostree: bool = False
    read_only_root: bool = False


class GrubConfig(Document, frozen=True, kw_only=True):
    """The generated GRUB configuration, reduced to the lines that decide what boots."""

    path: str = ""
    sha256: str = ""
    lines: list[str] = []  # menuentry, submenu, linux, initrd, set default, if/fi …, braces
    env: dict[str, str] = {}  # grubenv


class Boot(Document, frozen=True, kw_only=True):
    """Which boot stacks have left marks."""

    markers: list[str] = []  # paths of interest that exist
    tools: list[str] = []  # commands of interest that are installed
    grub: GrubConfig = GrubConfig()
    loader: dict[str, str] = {}  # EFI variables of systemd-boot: LoaderEntryDefault, LoaderEntryOneShot, …
    kargs: str = ""  # arguments of the deployment that boots next, as rpm-ostree says them


class FileFact(Document, frozen=True, kw_only=True):
    """A file that we may read or change. ``text`` has secrets blanked; ``sha256`` is of the real bytes."""

    sha256: str = ""
    size: int = 0
    mode: str = ""  # "0644"
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: str = ""  # symbolic link's target
    text: str | None = None
    redacted: int = 0  # lines with a blanked secret
    error: str = ""


class Service(Document, frozen=True, kw_only=True):
    """``systemctl show``: LoadState, UnitFileState, ActiveState, SubState, ConditionResult."""

    load: str = ""
    enabled: str = ""
    active: str = ""
    sub: str = ""
    condition: str = ""
    result: str = ""


class Facts(Document, frozen=True, kw_only=True):
    """Everything about one host, as collected in one round trip."""

    format_version: str = FORMAT_VERSION
    host: str = ""
    probe: ProbeInfo = ProbeInfo()
    inventory: Inventory = Inventory()
    signals: Signals = Signals()
    kernel: Kernel = Kernel()
    kexec: Kexec = Kexec()
    memory: Memory = Memory()
    targets: list[Target] = []
    network: list[NetworkDevice] = []
    ssh: Ssh = Ssh()
    distribution: Distribution = Distribution()
    boot: Boot = Boot()
    files: dict[str, FileFact] = {}
    packages: dict[str, str] | None = None  # installed ones of interest; None = no package database seen
    package_manager: str = ""  # dpkg | rpm | pacman | ""
    available: dict[str, str] = {}  # packages of interest that could be installed: name → candidate version
    services: dict[str, Service] = {}
