# SPDX-License-Identifier: Apache-2.0
"""Proofs for people: what came of a crash, what was seen on the way, and what to do about a loss."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.documents.proof import Proof
from orchestrator.reports.text import line

_MIB = 1 << 20


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB" if size >= 10 * _MIB else f"{size / _MIB:.1f} MiB"


def _headline(proof: Proof) -> tuple[str, str]:
    style = {"dumped": "green", "lost": "bold red"}.get(proof.outcome, "yellow")
    if proof.outcome == "unfinished":
        return "unfinished: the crash was never judged", style
    said = {"dumped": "dumped: the vmcore was read, with the panic in it", "lost": "lost: no vmcore that can be read"}
    if proof.predicted and proof.outcome == proof.predicted and proof.outcome == "lost":
        return f"{said['lost']}, as predicted", "green"
    if not proof.as_predicted:
        return f"{said[proof.outcome]}; predicted was: {proof.predicted}", "bold red"
    return said[proof.outcome], style


def show(proof: Proof) -> None:
    """One proof, from the outcome down to its evidence."""
    cpu = f" on CPU {proof.cpu}" if proof.cpu is not None else ""
    against = f", set against it: {proof.experiment}" if proof.experiment else ""
    said, style = _headline(proof)
    line(f"{proof.host}: {proof.crash}{cpu}: {said}", style)
    relied = f"relies on {proof.strategy}" if proof.strategy else ""
    about = [proof.arch, proof.kernel, proof.boot, proof.machine, relied]
    line(f"  {', '.join(part for part in about if part)}{against}")
    if proof.layers:
        line(f"  layers: {', '.join(f'{name} {state}' for name, state in proof.layers.items())}")
    if proof.capture.command_line:
        cpus = f"{proof.capture.cpus} CPU" if proof.capture.cpus == 1 else f"{proof.capture.cpus or 'unknown'} CPUs"
        line(f"  capture kernel: {cpus}, {proof.capture.command_line}", "dim")
    if proof.reservation:
        used = f", {_mib(proof.capture.peak)} in use at the worst moment" if proof.capture.peak else ""
        line(f"  reservation: {_mib(proof.reservation)}{used}")
    if proof.dump.size:
        read = f"; read by {', '.join(proof.dump.readers)}" if proof.dump.readers else ""
        line(f"  dump: {_mib(proof.dump.size)} in {proof.dump.path}{read}")
    if proof.dump.panic:
        line(f"  its kernel log ends with: {proof.dump.panic}")
    if proof.stages:
        line(f"  seconds: {', '.join(f'{stage.name} {stage.seconds:.0f}' for stage in proof.stages)}", "dim")
    if proof.what:
        line(f"  {proof.what}", "red" if not proof.as_predicted or proof.outcome == "unfinished" else "")
        for name, text in (("why", proof.why), ("fix", proof.fix)):
            if text:
                line(f"    {name}: {text}")
        for text in proof.console[-8:]:
            line(f"    | {text}", "dim")


def minimum(proofs: Sequence[Proof]) -> None:
    """The smallest reservation that dumped, and what became of smaller ones."""
    good = [p.reservation for p in proofs if p.outcome == "dumped" and p.reservation]
    if not good:
        line("no reservation has dumped", "bold red")
        return
    line(f"smallest reservation that dumped: {_mib(min(good))}", "bold")
    for proof in proofs:
        if proof.outcome != "dumped":
            line(f"  {_mib(proof.reservation) if proof.reservation else 'less'}: {proof.what}")
