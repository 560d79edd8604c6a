# SPDX-License-Identifier: Apache-2.0
"""``kdo rehearse``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import (
    Hosts,
    format_option,
    gather,
    host_options,
    policy_options,
    write_json,
    write_line,
)
from orchestrator.errors import Exit, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.documents.proof import Proof
    from orchestrator.planning.pipeline import Pipeline
    from orchestrator.proof.experiment import Experiment
    from orchestrator.proof.rehearse import Attempt, Rehearsal, Say
    from orchestrator.proof.scene import Scene


class Megabytes(click.ParamType[int]):
    """``1G``, ``1536M`` or a number of MiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper().removesuffix("B").removesuffix("I")
        factor = {"G": 1024, "M": 1}.get(text[-1:], 1)
        digits = text.rstrip("GM")
        if not digits.isdigit() or not 256 <= int(digits) * factor <= 1 << 20:
            self.fail(f"{value!r} is no size of a guest's memory, e.g. 1G or 1536M", param, ctx)
        return int(digits) * factor


@click.command()
@click.argument("host", required=False)
@host_options()
@policy_options()
@click.option("--arch", default="", metavar="ARCH", help="A guest of this architecture instead of one like a host.")
@click.option("--distro", default="", metavar="NAME", help="Its release, e.g. debian13.")
@click.option("--boot", default="", metavar="STACK", help="Its boot stack, e.g. grub-efi.")
@click.option("--image", type=click.Path(dir_okay=False), metavar="FILE",
              help="A disk of your own with cloud-init (qcow2 or raw) as the guest; it is not written to.")  # fmt: skip
@click.option("--memory", type=Megabytes(), metavar="SIZE", help="Its memory, e.g. 1G.")
@click.option("--cpus", type=click.IntRange(1, 64), metavar="N", help="Its CPUs.")
@click.option("-s", "--strategy", "strategies", multiple=True, metavar="LAYER",
              help="Rely on this layer instead of the policy's; `all` tries each that is allowed. Can be repeated.")  # fmt: skip
@click.option("--experiment", "experiments", multiple=True, metavar="LAYER=on|off",
              help="Set a layer against the decision; `none` sets nothing. Can be repeated.")  # fmt: skip
@click.option("--crash", "crashes", multiple=True, metavar="KIND", default=("sysrq",), show_default=True,
              help="How to crash (docs/proof.md lists the kinds). Can be repeated.")  # fmt: skip
@click.option("--cpu", type=click.IntRange(0), metavar="N", help="For --crash sysrq-cpu: the CPU that panics.")
@click.option("--anyway", is_flag=True, help="Crash the guest even if it does not validate: it should be lost then.")
@click.option("--minimise", is_flag=True, help="Find the smallest reservation that still dumps.")
@click.option("--artifacts", type=click.Path(file_okay=False), metavar="DIR",
              help="Keep console log, plans and proofs there. Default: below the state directory.")  # fmt: skip
@format_option("table", "json", "jsonl")
def command(
    host: str | None, hosts: Hosts, chosen: PolicyChoice, arch: str, distro: str, boot: str, image: str | None,
    memory: int | None, cpus: int | None, strategies: tuple[str, ...], experiments: tuple[str, ...], crashes: tuple[str, ...],
    cpu: int | None, anyway: bool, minimise: bool, artifacts: str | None, output: str,
) -> int:  # fmt: skip
    """Crash a disposable guest that is set up as HOST would be, and judge its dump. No host is touched.

    The guest runs under software emulation on this machine: minutes per crash. Needs root, to build its disk once.
    """
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.proof.minimise import smallest
    from orchestrator.proof.rehearse import Rehearsal
    from orchestrator.proof.store import keep
    from orchestrator.reports.proofs import minimum, show
    from orchestrator.reports.text import clean, line

    pipeline = chosen.pipeline()
    if arch and (host or hosts.inventory or hosts.facts):
        raise InvalidInput("--arch and a host exclude each other", fix="give one of them")
    scene = _scene(host, hosts, pipeline, arch, distro, boot, memory, cpus)
    if image:
        scene = replace(scene, image=Path(image))
    scene.require()
    attempts = _attempts(pipeline, scene, strategies, experiments, crashes, cpu)
    attempts = [replace(a, anyway=anyway) for a in attempts]
    home = Path(artifacts) if artifacts else _home()
    for text in scene.unlike:
        click.echo(clean(f"note: {text}"), err=True)
    proofs: list[Proof] = []
    say = _stages(quiet=output != "table")
    for proof in _run(Rehearsal(scene, pipeline, home, say=say), attempts, minimise=minimise):
        keep(proof)
        proofs.append(proof)
        if output == "table":
            show(proof)
        elif output == "jsonl":
            write_line(proof)
    if output == "json":
        write_json({"format_version": FORMAT_VERSION, "artifacts": str(home), "proofs": proofs,
                    "smallest_reservation": smallest(proofs) if minimise else None})  # fmt: skip
    elif output == "table":
        if minimise:
            minimum(proofs)
        line(f"console log, plans and proofs: {home}", "dim")
    tries = proofs[:1] if minimise else proofs  # the search for the smallest has to fail somewhere
    if any(p.outcome == "unfinished" for p in tries):
        return Exit.FAILED
    return Exit.OK if all(p.as_predicted for p in tries) else Exit.PENDING


def _scene(host: str | None, hosts: Hosts, pipeline: Pipeline, arch: str, distro: str, boot: str, memory: int | None,
           cpus: int | None) -> Scene:  # fmt: skip
    from orchestrator.proof.scene import scene, scene_of

    if arch:
        return scene(arch, distro, memory_mb=memory, cpus=cpus, boot=boot)
    if distro or boot:
        raise InvalidInput("--distro and --boot need --arch", why="else the guest is like a host", fix="add --arch")
    found = gather(hosts.narrowed(host), pipeline.targets())
    facts = [f for f in found.facts if not host or f.host == host]
    if len(facts) != 1:
        names = ", ".join(f.host for f in facts[:5])
        why = f"{len(facts)} fit: {names}" if facts else "; ".join(f"{p.host}: {p.what}" for p in found.problems)
        raise InvalidInput("a rehearsal is about one host", why=why, fix="name it: kdo rehearse HOST")
    return scene_of(facts[0], pipeline.judge(facts[0]).platform, memory_mb=memory, cpus=cpus)


def _attempts(pipeline: Pipeline, scene: Scene, strategies: tuple[str, ...], experiments: tuple[str, ...],
              crashes: tuple[str, ...], cpu: int | None) -> list[Attempt]:  # fmt: skip
    from orchestrator.documents.decision import LAYERS
    from orchestrator.errors import did_you_mean
    from orchestrator.proof.crashes import kind
    from orchestrator.proof.experiment import allowed, parse
    from orchestrator.proof.rehearse import Attempt

    wanted: list[str] = []
    for name in strategies or ("",):
        if name == "all":
            wanted += allowed(pipeline.decider.knowledge, scene.spec.arch)
        elif name and name not in LAYERS:
            raise InvalidInput(f"there is no layer {name!r}", fix=did_you_mean(name, LAYERS) or ", ".join(LAYERS))
        else:
            wanted.append(name)
    kinds = [kind(id) for id in crashes]
    for one in kinds:
        if not one.exists_on(scene.spec.arch):
            raise InvalidInput(
                f"there is no crash {one.id!r} on {scene.spec.arch}", fix=f"only on {', '.join(one.archs)}"
            )
    if cpu is not None and cpu >= scene.cpus:
        raise InvalidInput(f"the guest has no CPU {cpu}", why=f"it has {scene.cpus}", fix=f"add --cpus {cpu + 1}")
    tries: list[Experiment | None] = [parse(text) for text in experiments]
    return [
        Attempt(k, strategy, experiment, cpu if k.chosen_cpu else None)
        for strategy in dict.fromkeys(wanted)
        for experiment in tries or [None]
        for k in kinds
    ]


def _run(rehearsal: Rehearsal, attempts: list[Attempt], *, minimise: bool) -> Iterator[Proof]:
    from orchestrator.proof import minimise as search
    from orchestrator.proof.rehearse import rehearse

    if not minimise:
        yield from rehearse(rehearsal, attempts)
        return
    with rehearsal:
        for wanted in attempts:
            yield from search.minimise(rehearsal, wanted)


def _home() -> Path:
    from datetime import UTC, datetime

    from orchestrator.resources import state_dir

    return state_dir() / "rehearsals" / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _stages(*, quiet: bool) -> Say:
    """Each stage as it begins, on stderr."""
    import time

    began = time.monotonic()

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"[{time.monotonic() - began:5.0f} s] {text}", err=True)

    return say
