# SPDX-License-Identifier: Apache-2.0
"""Sets of points as unions of boxes, and the question that everything comes down to: does a box stick out of others?

A point has one class on each axis. A box maps an axis to a bit mask of classes; an axis that it does not name is free.
All boxes of a :class:`Cover` are numbered, and for each class of each axis one integer has a bit for every box that
allows it. "Which of a thousand boxes touch this one" is then a handful of integer operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

Box = dict[int, int]

MAX_BOXES = 4000
MAX_STEPS = 20_000


class Undecided(Exception):
    """The question is too large for the budget; the text says what made it so."""


def meet(a: Box, b: Box) -> Box | None:
    """What two boxes share."""
    if len(a) < len(b):
        a, b = b, a
    out = dict(a)
    for axis, mask in b.items():
        rest = out.get(axis, -1) & mask
        if not rest:
            return None
        out[axis] = rest
    return out


def bits(number: int) -> Iterator[int]:
    """Positions of the bits that are set, lowest first."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def _merge(boxes: Iterable[Box], full: Sequence[int]) -> list[Box]:
    """The same union with fewer boxes: equal ones once, and two that differ on one axis only become one."""
    todo = list({tuple(sorted(b.items())): b for b in boxes}.values())
    changed = len(todo) > 1
    while changed:
        changed = False
        for axis in sorted({a for b in todo for a in b}):
            groups: dict[tuple[tuple[int, int], ...], int] = {}
            rest: list[Box] = []
            for b in todo:
                if axis in b:
                    key = tuple(sorted((a, m) for a, m in b.items() if a != axis))
                    groups[key] = groups.get(key, 0) | b[axis]
                else:
                    rest.append(b)
            merged = [dict(key) if mask == full[axis] else {**dict(key), axis: mask} for key, mask in groups.items()]
            if len(merged) + len(rest) < len(todo):
                todo, changed = rest + merged, True
            elif any(mask == full[axis] for mask in groups.values()):
                todo = rest + merged
    return todo


def union(parts: Iterable[list[Box]], full: Sequence[int]) -> list[Box]:
    """All boxes of all parts, simplified."""
    boxes = [b for part in parts for b in part]
    if any(not b for b in boxes):
        return [{}]
    if len(boxes) > MAX_BOXES:
        raise Undecided(f"it has more than {MAX_BOXES} alternatives")
    return _merge(boxes, full)


def cross(parts: Iterable[list[Box]], full: Sequence[int]) -> list[Box]:
    """What all parts share, simplified."""
    out: list[Box] = [{}]
    for part in sorted(parts, key=len):
        if len(out) * len(part) > 20 * MAX_BOXES:
            raise Undecided(f"it has more than {MAX_BOXES} alternatives")
        out = _merge([m for a in out for b in part if (m := meet(a, b)) is not None], full)
        if len(out) > MAX_BOXES:
            raise Undecided(f"it has more than {MAX_BOXES} alternatives")
    return out


class Cover:
    """Numbered boxes over axes with ``sizes`` classes. The first class of an axis is the one that examples prefer.

    ``groups`` are axes with the classes no and yes that are bound to each other (patterns and names); ``consistent``
    says of a box and numbers of groups whether there is a point at all with these classes.

    An axis that no box wants a "no" of (a group of the inventory, say) is *idle*: whatever a point has there, "no" is
    at least as good, so a box that wants its "yes" only counts where the question itself asks for that "yes".
    """

    def __init__(
        self,
        sizes: Sequence[int],
        boxes: Sequence[Box],
        consistent: Callable[[Box, Iterable[int]], bool],
        groups: Sequence[frozenset[int]],
    ) -> None:
        self.full = [(1 << size) - 1 for size in sizes]
        self.boxes = boxes
        self.all = (1 << len(boxes)) - 1
        self._consistent = consistent
        self._mention = [0] * len(sizes)
        self._allow: list[list[int]] = [[0] * size for size in sizes]
        for number, box in enumerate(boxes):
            for axis, mask in box.items():
                self._mention[axis] |= 1 << number
                for c in bits(mask):
                    self._allow[axis][c] |= 1 << number
        for axis, mention in enumerate(self._mention):
            others = self.all & ~mention
            self._allow[axis] = [a | others for a in self._allow[axis]]
        never_no = {
            axis
            for axis, allow in enumerate(self._allow)
            if self.full[axis] == 3 and not allow[0] & ~allow[1] & self._mention[axis]
        }
        bound = frozenset[int]().union(*groups)
        self._groups = groups
        self._idle = frozenset(never_no - bound)
        self._idle_groups = [n for n, group in enumerate(groups) if group <= never_no]
        self._kept: dict[frozenset[int], tuple[int, list[int], Box]] = {}
        used = [axis for axis, mention in enumerate(self._mention) if mention and axis not in self._idle]
        used.sort(key=lambda axis: -self._mention[axis].bit_count())
        self._used, self._free = used, [axis for axis in used if axis not in bound]
        self._free_set = frozenset(self._free)
        self._asked = self._idle | bound
        self._rare = {axis: self._rarest(axis) for axis in used}  # what the fewest boxes take
        self._cache: dict[tuple[int, int], int] = {}
        self._steps = 0
        self._open: list[int] = []  # groups that the question at hand leaves to the search
        self.core: set[int] = set()  # boxes that the last answer "covered" rests on

    def _rarest(self, axis: int) -> int:
        allow = self._allow[axis]
        return min(range(len(allow)), key=lambda c: (allow[c].bit_count(), c))

    def _idling(self, box: Box) -> tuple[int, list[int], Box]:
        """The boxes that count when idle axes are "no" wherever ``box`` does not ask for a "yes"; the groups of which
        that cannot be said; and what it comes to on the axes of the others."""
        asked = frozenset([axis for axis, mask in box.items() if mask == 2 and axis in self._asked])
        found = self._kept.get(asked)
        if found is None:
            ignored, left, more = self._idle - asked, [], dict[int, int]()
            for n, group in enumerate(self._groups):
                rest = {axis: 2 if axis in asked else 1 for axis in group}
                if n in self._idle_groups and self._consistent(rest, [n]):
                    ignored |= group - asked
                    more |= rest
                else:
                    left.append(n)
            kept = sum(1 << n for n, other in enumerate(self.boxes) if ignored.isdisjoint(other))
            found = self._kept[asked] = kept, left, more
        return found

    def _on(self, axis: int, mask: int) -> int:
        """Boxes that touch these classes of an axis."""
        found = self._cache.get((axis, mask))
        if found is None:
            found = 0
            for c in bits(mask):
                found |= self._allow[axis][c]
            self._cache[axis, mask] = found
        return found

    def touching(self, box: Box, among: int) -> int:
        """Those of the numbered boxes ``among`` that share a point with ``box``."""
        for axis, mask in box.items():
            among &= self._on(axis, mask)
        return among

    def outside(self, box: Box, among: int, hints: Sequence[Box] = ()) -> Box | None:
        """A point of ``box`` outside all boxes of ``among``, or ``None`` if it is covered; ``hints``: points to try
        first, as numbers of classes.

        The point is a box, and an axis that it does not name has its first class. Raises :class:`Undecided`.
        """
        alive = self.touching(box, among)
        kept, self._open, more = self._idling(box)
        alive &= kept
        self.core = set()
        found = self._outside(box, alive, hints)
        return None if found is None else {**more, **found}

    def _outside(self, box: Box, alive: int, hints: Sequence[Box]) -> Box | None:
        if not alive:
            return box if self._consistent(box, self._open) else None
        for guess in (*hints, {}, self._rare):
            if (point := self._try(box, alive, guess)) is not None:
                return point
        self._steps = 0
        try:
            return self._search(dict(box), alive)
        except RecursionError:
            raise Undecided("its rules are nested too deeply to compare") from None

    def _try(self, box: Box, alive: int, guess: Box) -> Box | None:
        """The point of ``box`` with the classes of ``guess`` (numbers, not masks) elsewhere, if it lies outside."""
        point = dict(box)
        for axis, mask in box.items():
            if mask & (mask - 1):
                c = guess.get(axis, 0)
                point[axis] = 1 << c if mask >> c & 1 else mask & -mask
                alive &= self._on(axis, point[axis])
        for axis in self._used if self._open else self._free:
            if axis not in box:
                c = guess.get(axis, 0)
                less = alive & self._allow[axis][c]
                if less != alive:
                    alive, point[axis] = less, 1 << c
                    if not alive:
                        break
        return point if not alive and self._consistent(point, self._open) else None

    def _dominate(self, box: Box, alive: int) -> int:
        """Choose a class wherever one is at least as good as every other: touched by no box that misses the others."""
        few = alive.bit_count() < 24
        axes = {a for n in bits(alive) for a in self.boxes[n]} & self._free_set if few else self._free
        for axis in axes:
            mask = box.get(axis, self.full[axis])
            if not mask & (mask - 1) or not alive & self._mention[axis]:
                continue
            allow = self._allow[axis]
            classes = [c for c in range(len(allow)) if mask >> c & 1]
            least = alive
            for c in classes:
                least &= allow[c]
            if least == alive:
                continue
            for c in classes:
                if alive & allow[c] == least:
                    box[axis], alive = 1 << c, least
                    break
        return alive

    def _search(self, box: Box, alive: int) -> Box | None:
        """Splits ``box`` (its own to change) along a box of the cover until a piece is free of them all."""
        while True:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise Undecided(f"more than {MAX_STEPS} cases")
            if not self._consistent(box, self._open):
                return None
            before = -1
            while alive and before != alive:
                before, alive = alive, self._dominate(box, alive)
            if not alive:
                return box
            cut = self._tightest(box, alive)
            if not cut:
                return None
            if len(cut) > 1:
                break
            axis, mask = cut[0]
            box[axis] = box.get(axis, self.full[axis]) & ~mask
            alive &= self._on(axis, box[axis])
        for axis, mask in cut:
            now = box.get(axis, self.full[axis])
            piece = {**box, axis: now & ~mask}
            found = self._search(piece, alive & self._on(axis, piece[axis]))
            if found is not None:
                return found
            box[axis] = now & mask
            alive &= self._on(axis, box[axis])
        return None

    def _tightest(self, box: Box, alive: int) -> list[tuple[int, int]]:
        """The axes on which a box of the cover leaves something of ``box``: those of the box that leaves the fewest."""
        best: list[tuple[int, int]] | None = None
        chosen = 0
        for number in bits(alive):
            cut = [(a, m) for a, m in self.boxes[number].items() if box.get(a, self.full[a]) & ~m]
            if best is None or len(cut) < len(best):
                best, chosen = cut, number
                if len(cut) < 2:
                    break
        self.core.add(chosen)
        return best or []

    # ------------------------------------------------------------------ for people

    def _taking(self, point: Box, among: int) -> int:
        for axis, mask in point.items():
            among &= self._allow[axis][mask.bit_length() - 1]
        return among

    def ordinary(self, box: Box, among: int) -> Box | None:
        """A point of ``box`` outside all boxes of ``among`` that has the preferred class on as many axes as is easy.

        Starts from the preferred point and changes one axis after the other, as long as that helps; ``None`` if this
        leads nowhere, which says nothing about whether there is one.
        """
        point: Box = {}
        for axis, mention in enumerate(self._mention):
            if mention or axis in box:
                mask = box.get(axis, self.full[axis])
                point[axis] = mask & -mask
        left = self._taking(point, among)
        fixed: set[int] = set()
        while left:
            best: tuple[int, int, int] | None = None
            for number in bits(left):
                for axis, mask in self.boxes[number].items():
                    if axis not in fixed:
                        for c in bits(box.get(axis, self.full[axis]) & ~mask):
                            now = self._taking({**point, axis: 1 << c}, among).bit_count()
                            if best is None or (now, c) < (best[0], best[2]):
                                best = now, axis, c
            if best is None:
                return None
            fixed.add(best[1])
            point[best[1]] = 1 << best[2]
            left = self._taking(point, among)
        return point if self._consistent(point, range(len(self._groups))) else None

    def reasons(self, box: Box, point: Box, among: int) -> list[int]:
        """A few axes whose class keeps ``point`` out of ``among``, besides those on which ``box`` does."""
        left, out = self.touching(box, among) & self._idling(box)[0], []
        while left:
            number = (left & -left).bit_length() - 1
            stay = {
                a: left & self._on(a, point.get(a, 1)) for a, m in self.boxes[number].items() if not point.get(a, 1) & m
            }
            if not stay:
                left ^= 1 << number
                continue
            axis = min(stay, key=lambda a: (stay[a].bit_count(), a))
            left = stay[axis]
            out.append(axis)
        return out
