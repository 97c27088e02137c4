"""Mutants of a module's source, and a sample of those of a room. Pure."""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators, operator_string
from mutmut.mutation.pragma_handling import IgnoredCode

# Words are for people: that they are spelt in capitals, or with XX around them, is nobody's fault to find.
OPERATORS = [(kind, operator) for kind, operator in mutation_operators if operator is not operator_string]
# What is said in a log is no behaviour either.
TELLERS = frozenset({"log", "logs", "console"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of a file. `line` is where it begins, from 1; `code` the whole mutated file."""

    path: str
    line: int
    diff: str
    code: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a mutant can be made. Files have thousands, so each is made only when it is drawn."""

    path: str
    line: int
    _source: str
    _module: cst.Module
    _before: cst.CSTNode
    _after: cst.CSTNode

    def make(self) -> Mutant | None:
        """The mutant; None when it would be no other program, or none at all."""
        changed = self._module.deep_replace(self._before, self._after)
        code = changed.code if isinstance(changed, cst.Module) else self._source
        if code == self._source or not _compiles(code):
            return None
        return Mutant(self.path, self.line, _diff(self.path, self._source, code), code)


class _Visitor(MutationVisitor):
    """Leaves out what tellers are told, and all that is not inside a function."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            teller = node.func.value
            if isinstance(teller, cst.Name) and teller.value in TELLERS:
                return True
        return bool(super()._skip_node_and_children(node))


def candidates(path: str, source: str) -> list[Candidate]:
    """Every candidate of a file's functions, in the order of its text; the same source gives the same ones.

    What is declared outside of functions (constants, the fields of documents) is data, and read by people.
    """
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor(OPERATORS, IgnoredCode(set(), set(), set()))
    module = wrapper.visit(visitor)
    positions = wrapper.resolve(PositionProvider)
    return [
        Candidate(path, positions[m.original_node].start.line, source, module, m.original_node, m.mutated_node)
        for m in visitor.mutations
        if isinstance(m.contained_by_top_level_function, cst.FunctionDef)
    ]


def sample(by_module: Mapping[str, Sequence[Candidate]], count: int, seed: int) -> list[Mutant]:
    """`count` mutants (or all there are), spread evenly over the modules, drawn from a seed and from nothing else."""
    rng = random.Random(seed)
    piles = [rng.sample(list(by_module[name]), len(by_module[name])) for name in sorted(by_module)]
    rng.shuffle(piles)
    out: list[Mutant] = []
    while len(out) < count and any(piles):
        for pile in piles:
            while pile and len(out) < count:
                if (made := pile.pop().make()) is not None:
                    out.append(made)
                    break
    return out


def _compiles(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _diff(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm="", n=2)
    return "\n".join(lines)
