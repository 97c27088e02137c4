"""A moment, on two clocks: the wall's, which people read and may step, and one that only goes forward."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.region import SECOND


@dataclass(frozen=True, slots=True)
class Moment:
    """`wall_ns`: ns since 1970, for people and for after a restart. `mono_ns`: for every wait within a life."""

    wall_ns: int
    mono_ns: int

    def after(self, seconds: float) -> Moment:
        """The moment so many seconds later, if nobody sets the clock."""
        return Moment(self.wall_ns + int(seconds * SECOND), self.mono_ns + int(seconds * SECOND))

    def past(self, wall_ns: int) -> Moment:
        """A moment of an earlier life, by what the wall clock showed; never in the future."""
        return Moment(wall_ns, self.mono_ns - max(0, self.wall_ns - wall_ns))

    def coming(self, wall_ns: int, most_s: float) -> Moment:
        """A moment that an earlier life waited for; never further off than `most_s`."""
        return self.after(min(max(0, wall_ns - self.wall_ns) / SECOND, most_s))
