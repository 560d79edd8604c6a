# SPDX-License-Identifier: Apache-2.0
"""Facts → Platform, a pure function: the same facts give the same bytes, and the order of lists in them does not matter.

Rows of the table that match are sorted by rank and narrow a set per field, the highest rank first: what the kernel
itself concluded, then CPUID, other mechanisms, brand names, and ``systemd-detect-virt`` last. A row that leaves
nothing of the set contradicts it: the set stays, the contradiction is kept and the platform is ambiguous. A set that
does not come down to one word is ``unknown``.

Hosts of a fleet repeat themselves, so what equal facts came to is remembered, under the bytes of all that is read of
them. Two things would make each host its own case and are left out of these bytes: the command line, which only family
and boot stack look at (they are concluded afresh and stand in the bytes themselves), and lines of the kernel log that
match no row (it quotes the command line).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

import msgspec

from orchestrator.documents.facts import Facts, Signals
from orchestrator.documents.platform import Contradiction, Evidence, Platform
from orchestrator.platforms.fields import log_is_complete
from orchestrator.platforms.gather import Gatherer
from orchestrator.platforms.memory import Platforms, Room
from orchestrator.platforms.rows import VALUE_LIMIT, Condition, Hit, Row, Statement
from orchestrator.platforms.tables import Choice, Missing, Tables, load

_NOTHING: list[Statement] = []
_encode = msgspec.json.Encoder().encode
_all_but_log_and_dmi = attrgetter(*(name for name in Signals.__struct_fields__ if name not in ("kernel_log", "dmi")))

Choices = tuple[tuple[tuple[Condition, ...], str], ...]


@dataclass(frozen=True, slots=True)
class _OfArch:
    """What of the tables can hold on one architecture."""

    gatherer: Gatherer
    families: Choices
    boot_stacks: Choices
    missing: tuple[Missing, ...]


def _choices(rows: tuple[Choice, ...], arch: str) -> Choices:
    return tuple((row.conditions, row.answer) for row in rows if row.arch is None or arch in row.arch)


def _first(choices: Choices, facts: Facts) -> str:
    """Answer of the first choice whose conditions all hold; empty for none."""
    for conditions, answer in choices:
        for condition in conditions:
            if not condition(facts):
                break
        else:
            return answer
    return ""


class _Conflict:
    """Contradictions while they are collected; ``notes`` marks evidence that was set aside (by the identity of the evidence)."""

    __slots__ = ("found", "notes")

    def __init__(self) -> None:
        self.found: list[tuple[str, Statement, int]] = []  # field, statement, set before it
        self.notes: dict[int, str] = {}


class Classifier:
    """Classifies with one set of tables. Remembers which rows match which texts and what equal facts came to, within bounds."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        words = tables.vocabularies
        hypervisor, role, inside = words["hypervisor"], words["role"], words["inside"]
        self._any_hypervisor, self._none = hypervisor.all, hypervisor.bits["none"]
        self._any_role, self._guest, self._host = role.all, role.bits["guest"], role.bits["host"]
        self._any_inside, self._own = inside.all, inside.bits["own"]
        self._by_arch: dict[str, _OfArch] = {}
        self._hypervisor_names, self._role_names = hypervisor.names, role.names
        self._room = Room()
        self._seen = Platforms(self._room)

    def _of_arch(self, arch: str) -> _OfArch:
        found = self._by_arch.get(arch)
        if found is None:
            tables = self.tables
            found = self._by_arch[arch] = _OfArch(
                Gatherer(tables.rows, arch, tables.lower_leaf_note, self._room),
                _choices(tables.family_rows, arch),
                _choices(tables.boot_rows, arch),
                tuple(m for m in tables.missing if m.arch is None or arch in m.arch),
            )
        return found

    # ------------------------------------------------------------------ concluding

    def _settle(
        self, field: str, statements: list[Statement], conflict: _Conflict, *, everything: int, below: bool = False
    ) -> tuple[int, int]:
        """Narrow the set. Returns it, and the bit that the highest statement with a preference wants (0: none)."""
        mask, preferred = everything, 0
        limit = self.tables.below_rank if below else 0
        for statement in statements:
            row, evidence, stated, wanted = statement
            rest = mask & stated
            if rest:
                mask = rest
                if wanted and not preferred & rest:
                    preferred = wanted & rest
            elif row.rank < limit:
                conflict.notes[id(evidence)] = self.tables.below_note
            elif row.yields:
                conflict.notes[id(evidence)] = "set aside: sources of higher rank say otherwise"
            else:
                conflict.found.append((field, statement, mask))
        return mask, preferred

    def _arch(self, facts: Facts) -> str:
        """``uname -m`` can be told to lie by a personality; /proc/sys/kernel/arch (6.1 and later) cannot."""
        kernel = facts.kernel.sysctls.get("kernel/arch", "").strip()
        of_kernel = self.tables.arches.get(kernel, "unknown")
        return of_kernel if of_kernel != "unknown" else self.tables.arches.get(facts.signals.machine or "", "unknown")

    def _uname(self, said: str, arch: str, aside: list[Evidence], contradictions: list[Contradiction]) -> None:
        """What becomes of the answer of ``uname -m`` where it differs from the architecture."""
        of_machine = self.tables.arches.get(said, "unknown")
        if not said or of_machine == arch:
            return
        aside.append(
            Evidence(
                source="uname",
                value=said[:VALUE_LIMIT],
                says=f"arch={of_machine}",
                rank=0,
                note="set aside: a personality can change it, /proc/sys/kernel/arch names the kernel's own",
                ref="kernel-arch",
            )
        )
        if of_machine not in ("unknown", *self.tables.personalities.get(arch, ())):
            why = f"uname says {said[:40]!r} and no personality of {arch} is called that"
            contradictions.append(Contradiction(field="arch", chosen=arch, against=of_machine, why=why))

    def _role(self, inside: int, preferred: int, role: int, hypervisor: int) -> str:
        if inside != self._any_inside and not inside & self._own:
            names = self.tables.vocabularies["inside"].names
            return names[preferred] if preferred in names else names[inside & -inside]
        if role in self._role_names:
            return self._role_names[role]
        if hypervisor == self._none:
            return "host" if role & self._host else "unknown"
        if not hypervisor & self._none and role & self._guest:
            return "guest"
        return "unknown"

    def _one(self, field: str, by_field: dict[str, list[Statement]], given: dict[str, str], conflict: _Conflict) -> str:
        """Conclusion of a field that hangs on nothing else: one word, the preferred one of several, or nothing."""
        statements = by_field.get(field)
        if not statements:
            return ""
        statements = [s for s in statements if not s.row.given or _applies(s.row, given)]
        if not statements:
            return ""
        words = self.tables.vocabularies[field]
        mask, preferred = self._settle(field, statements, conflict, everything=words.all)
        return words.names.get(mask) or words.names.get(preferred, "")

    def _product(self, hits: list[Hit], facts: Facts) -> str:
        for h in hits:
            row = h.row
            template = row.product
            if template:
                if "{" not in template:
                    return template
                dmi = facts.signals.dmi
                if dmi.get("product_name", "").startswith(
                    dmi.get("sys_vendor", "")
                ):  # "Google" "Google Compute Engine"
                    template = template.replace("{sys_vendor} ", "")
                text = template.replace("{value}", h.evidence.value)
                for key in ("sys_vendor", "product_name", "product_version"):
                    text = text.replace(f"{{{key}}}", dmi.get(key, "")[:VALUE_LIMIT])
                if not text.isprintable():
                    text = "".join(c if c.isprintable() else " " for c in text)
                return " ".join(text.split())[:VALUE_LIMIT]
        return ""

    def _confidential(self, said: str, arch: str, role: str, facts: Facts) -> str:
        """``none`` needs a source that would have shown it: the whole kernel log, or systemd's own answer."""
        if said:
            return said
        if role in ("host", "dom0", "root") or arch not in self.tables.confidential_arches:
            return "none"
        return "none" if log_is_complete(facts) else "unknown"

    def _family(self, facts: Facts, choices: Choices) -> str:
        chosen = _first(choices, facts)
        if chosen:
            return chosen
        distribution = facts.distribution
        family = self.tables.family_ids.get(distribution.id)
        if family is not None:
            return family
        for like in distribution.id_like:
            family = self.tables.family_like.get(like)
            if family is not None:
                return family
        return "unknown"

    def _unseen(self, facts: Facts, missing: tuple[Missing, ...], role: str, rank: int) -> list[str]:
        out: list[str] = []
        for m in missing:
            if rank >= m.below or (m.roles is not None and role not in m.roles):
                continue
            if not m.get(facts) and all(c(facts) for c in m.conditions):
                out.append(m.text)
        return out

    def _contradictions(self, conflict: _Conflict, chosen: dict[str, str]) -> list[Contradiction]:
        out: list[Contradiction] = []
        for field, (row, evidence, stated, _), before in conflict.found:
            words = self.tables.vocabularies[field]
            picked = chosen[field] if chosen[field] not in ("", "unknown") else words.spell(before)
            against = words.spell(stated)
            what = "brand" if row.brand else row.data["source"]
            entry = Contradiction(
                field="role" if field == "inside" else field,
                chosen=picked,
                against=against,
                why=f"{what} {evidence.value!r} says {against}, sources of higher rank say {picked}",
            )
            if entry not in out:
                out.append(entry)
        return out

    # ------------------------------------------------------------------ the whole

    def classify(self, facts: Facts) -> Platform:
        """The platform of these facts. Never raises on facts that decode. Equal hosts may share one object."""
        arch = self._arch(facts)
        of_arch = self._of_arch(arch)
        family = self._family(facts, of_arch.families)
        boot_stack = _first(of_arch.boot_stacks, facts) or "unknown"
        log = facts.signals.kernel_log
        if not self.tables.whole_log:
            log = of_arch.gatherer.telling(log)
        outside = [get(facts) for get in self.tables.outside_signals]
        try:
            dmi = of_arch.gatherer.telling_dmi(facts.signals.dmi, self.tables.whole_dmi)
            key = _encode(
                (_all_but_log_and_dmi(facts.signals), log, bool(facts.signals.dmi), dmi, family, boot_stack, outside)
            )
        except UnicodeEncodeError:  # texts that never were JSON
            return self._conclude(facts, arch, family, boot_stack)
        platform = self._seen.get(key)
        if platform is None:
            platform = self._conclude(facts, arch, family, boot_stack)
            self._seen.keep(key, platform)
        return platform

    def _conclude(self, facts: Facts, arch: str, family: str, boot_stack: str) -> Platform:
        """The same without looking at earlier hosts. Reads only signals, arguments and ``tables.outside_signals``."""
        tables, of_arch = self.tables, self._of_arch(arch)
        aside: list[Evidence] = []
        contradictions: list[Contradiction] = []
        self._uname(facts.signals.machine or "", arch, aside, contradictions)
        hits = of_arch.gatherer.gather(facts, aside)

        by_field: dict[str, list[Statement]] = {}
        for h in hits:
            for name, statement in h.statements:
                if name in by_field:
                    by_field[name].append(statement)
                else:
                    by_field[name] = [statement]

        conflict = _Conflict()
        inside, inside_wants = self._settle(
            "inside", by_field.get("inside", _NOTHING), conflict, everything=self._any_inside
        )
        role_mask, _ = self._settle("role", by_field.get("role", _NOTHING), conflict, everything=self._any_role)
        below = self._role_names.get(role_mask, "") in tables.below_roles
        speaking = by_field.get("hypervisor", _NOTHING)
        mask, _ = self._settle("hypervisor", speaking, conflict, everything=self._any_hypervisor, below=below)
        hypervisor = self._hypervisor_names.get(mask, "unknown")
        role = self._role(inside, inside_wants, role_mask, mask)

        given = {"hypervisor": hypervisor, "role": role}
        variant = self._one("variant", by_field, given, conflict)
        cloud = self._one("cloud", by_field, given, conflict)
        confidential = self._one("confidential", by_field, given, conflict)
        confidential_host = self._one("confidential_host", by_field, given, conflict)
        hits = [h for h in hits if not h.row.given or _applies(h.row, given)]
        notes = conflict.notes
        if notes:
            evidence = [
                h.row.evidence(h.evidence.value, notes[id(h.evidence)]) if id(h.evidence) in notes else h.evidence
                for h in hits
            ]
        else:
            evidence = [h.evidence for h in hits]
        if conflict.found:
            chosen = {"hypervisor": hypervisor, "role": role, "inside": role, "variant": variant, "cloud": cloud}
            chosen |= {"confidential": confidential, "confidential_host": confidential_host}
            contradictions += self._contradictions(conflict, chosen)
        rank = speaking[0].row.rank if speaking else -1
        distribution = facts.distribution
        return Platform(
            arch=arch,
            hypervisor=hypervisor,
            role=role,
            variant=variant,
            product=self._product(hits, facts),
            cloud=cloud,
            confidential=self._confidential(confidential, arch, role, facts),
            paravisor=any([h.row.paravisor for h in hits]),  # noqa: C419  (a list is faster than a generator here)
            confidential_host=confidential_host,
            ambiguous=bool(contradictions),
            evidence=[*evidence, *aside] if aside else evidence,
            contradictions=contradictions,
            unseen=self._unseen(facts, of_arch.missing, role, rank),
            family=family,
            distribution=distribution.id,
            distribution_version=distribution.version_id,
            boot_stack=boot_stack,
        )


def _applies(row: Row, given: dict[str, str]) -> bool:
    for name, words in row.given.items():  # noqa: SIM110  (a generator costs more than the tests)
        if given[name] not in words:
            return False
    return True


@lru_cache(maxsize=4)  # a comparison needs two
def _classifier(tables: Tables) -> Classifier:
    return Classifier(tables)


def classify(facts: Facts, tables: Tables | None = None) -> Platform:
    """The platform of these facts, by the shipped tables (loaded on the first call) or by other ones."""
    return _classifier(load() if tables is None else tables).classify(facts)
