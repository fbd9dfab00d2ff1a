"""Configurations that are chosen by name, such as a level's learner: `--low.learner sac`."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from hrl.types import UserError

C = TypeVar("C", bound=Any)


@dataclass
class Variant:
    """The base of interchangeable dataclasses, each with its own `kind`.

    On the command line and in presets, the options of a variant appear next to the choice:
    `--low.learner sac --low.tau .01`. A class that sets `kind` can be chosen by this name in every configuration of its
    family.
    """

    kind: str = ""
    """The name of the variant."""
    kinds: ClassVar[dict[str, type[Any]]] = {}

    def __init_subclass__(cls, family: bool = False, listed: bool = True) -> None:
        """`family` starts a new family. A class that is not `listed` can only be a default; it cannot be chosen by its
        kind."""
        super().__init_subclass__()
        if family:
            cls.kinds = {}
        if listed and (kind := vars(cls).get("kind")):
            cls.kinds[kind] = cls

    @classmethod
    def named(cls, kind: Any, where: str) -> type[Any]:
        """The dataclass of this kind. Raises UserError, naming the option `where`, if there is none."""
        if kind not in cls.kinds:
            raise UserError(f"{where} must be one of {', '.join(sorted(cls.kinds))}, not {kind!r}.")
        return cls.kinds[kind]

    def switched(self, kind: Any, where: str) -> Any:
        """The variant of another kind. Options that both have and that were changed here keep their values."""
        if kind == self.kind:
            return self
        if kind not in self.choices and kind in self.kinds:
            raise UserError(
                f"{where} cannot be {kind}, because this algorithm has its own update rule: omit the option."
            )
        new = self.named(kind, where)
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != default_of(f)}
        return new(**{f.name: changed[f.name] for f in fields(new) if f.name in changed and f.name != "kind"})

    @property
    def choices(self) -> dict[str, type[Any]]:
        """The variants that can be chosen here by their kind: those of the family, or this one alone if it is not
        listed."""
        return dict(self.kinds) if type(self) in self.kinds.values() else {self.kind: type(self)}

    def owners(self, option: str) -> list[str]:
        """The kinds that have this option, among those that can be chosen here."""
        return [kind for kind, other in self.choices.items() if option in other.__dataclass_fields__]


def default_of(field: Field[Any]) -> Any:
    """The default of a dataclass field; MISSING if it has none."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def flat(config: C, options: Mapping[str, Any]) -> C:
    """A copy of a configuration with these options, including those of its variants.

    Raises TypeError for unknown options.
    """
    own = {f.name for f in fields(config)}
    changes: dict[str, Any] = {}
    rest = {name: value for name, value in options.items() if name not in own}
    for field in fields(config):
        current = getattr(config, field.name)
        if isinstance(current, Variant):
            given = options.get(field.name, current)
            variant = current.switched(given, field.name) if isinstance(given, str) else given
            mine = {f.name for f in fields(variant)} & rest.keys()
            changes[field.name] = replace(variant, **{name: rest.pop(name) for name in mine})
        elif field.name in options:
            changes[field.name] = options[field.name]
    if rest:
        raise TypeError(f"{type(config).__name__} has no options {', '.join(sorted(rest))}")
    return replace(config, **changes)
