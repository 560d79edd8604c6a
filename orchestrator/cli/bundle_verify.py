# SPDX-License-Identifier: Apache-2.0
"""``kdo bundle verify``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", metavar="BUNDLE", type=click.Path(dir_okay=False))
@click.option(
    "--allowed-signers",
    metavar="FILE",
    help="Whose signature counts (docs/signed-policies.md). Without: not looked at.",
)
def command(file: str, allowed_signers: str | None) -> int:
    """Check a bundle as a host with this version of kdo would; exit code 5 when the host would refuse it."""
    from datetime import UTC, datetime

    from orchestrator.agent.bundle import MAX_BUNDLE, expired, opened, parse
    from orchestrator.agent.pull import MAX_SIGNATURE, local_bytes, signer_of
    from orchestrator.errors import InvalidInput
    from orchestrator.knowledge.load import knowledge
    from orchestrator.reports.text import line

    data = local_bytes(Path(file), "bundle", MAX_BUNDLE)
    signer = ""
    if allowed_signers is not None:
        signature = local_bytes(Path(f"{file}.sig"), "signature", MAX_SIGNATURE)
        signer = signer_of(data, signature, allowed_signers, file)
    bundle = parse(data, file)
    if over := expired(bundle, datetime.now(UTC).date(), file):
        raise InvalidInput([over])
    opened(bundle, knowledge(), signer)
    who = f"signed by {signer}" if signer else "its signature was not looked at (--allowed-signers FILE)"
    line(f"{file}: bundle {bundle.serial} of policy {bundle.policy_name} is fine, {who}")
    return 0
