"""Methods by name: a spec string such as `"sentence(tokens=256)"` becomes the dataclass that a file registers.

Each family of methods (chunkers, retrievers, choosers, …) is a `Family` over one package. A method is a file of that
package, named as its spec names it; importing the file registers it. Other distributions add methods through entry
points in the group `longreach.<family>`, whose name is the spec's name and whose value is the class.

What a method needs and a caller cannot write down (a token counter, an encoder, an open library) is a *resource*: a
keyword-only field made with `resource()`, filled by `Family.make`.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from longreach.errors import SpecError

T = TypeVar("T")
C = TypeVar("C", bound=type)


def resource() -> Any:
    """A dataclass field that `Family.make` fills in and a spec string cannot name."""
    return field(kw_only=True, repr=False, compare=False, metadata={"resource": True})


@dataclass(frozen=True, slots=True)
class Spec:
    """A method's name with its arguments; `str(spec)` parses back to an equal spec."""

    name: str
    positional: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        arguments = [_literal(value) for value in self.positional]
        arguments += [f"{key}={_literal(value)}" for key, value in self.named]
        return f"{self.name}({', '.join(arguments)})" if arguments else self.name


def parse(text: str) -> Spec:
    """Read `name` or `name(value, key=value)`. Values are Python literals; a bare word is a string, a word with
    parentheses a nested spec. Raises SpecError."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise SpecError(f"cannot read the spec {text!r}: write name or name(key=value, ...)") from None
    if isinstance(tree, ast.Name):
        return Spec(tree.id)
    spec = _value(tree, text)
    if isinstance(spec, Spec):
        return spec
    raise SpecError(f"cannot read the spec {text!r}: write name or name(key=value, ...)")


def _value(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Name(id=word):
            return {"true": True, "false": False, "none": None}.get(word, word)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if all(k.arg for k in keywords):
            named = tuple((k.arg or "", _value(k.value, text)) for k in keywords)
            return Spec(name, tuple(_value(argument, text) for argument in args), named)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, text) for item in items]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise SpecError(f"cannot read {ast.unparse(node)!r} in the spec {text!r}") from None


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return str(value) if isinstance(value, Spec) else repr(value)


class Family(Generic[T]):
    """The methods of one kind. `Family("chunkers", "longreach.corpus.chunk")` finds them in that package."""

    def __init__(self, name: str, package: str) -> None:
        self.name = name
        self.package = package
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: make a dataclass available as `name`."""

        def add(cls: C) -> C:
            if not is_dataclass(cls):
                raise TypeError(f"{cls.__name__} must be a dataclass to be registered as {name!r}")
            self._classes[name] = cls  # type: ignore[assignment]
            return cls

        return add

    def names(self) -> list[str]:
        """Every known name, sorted."""
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")
        return sorted({*self._classes, *(point.name for point in entry_points(group=self._group))})

    def get(self, name: str) -> type[T]:
        """The class registered as `name`. Raises SpecError listing the known names."""
        if name not in self._classes and name.isidentifier() and not name.startswith("_"):
            module = f"{self.package}.{name}"
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name != module:
                    raise
        if name not in self._classes:
            for point in entry_points(group=self._group, name=name):
                self._classes[name] = point.load()
        if name not in self._classes:
            raise SpecError(f"no {self._one} is called {name!r}; known: {', '.join(self.names())}")
        return self._classes[name]

    def make(self, spec: str | Spec, **resources: Any) -> T:
        """Build the method that `spec` names. Of `resources` it takes those it declares. Raises SpecError."""
        spec = parse(spec) if isinstance(spec, str) else spec
        cls = self.get(spec.name)
        options = {f.name: f for f in fields(cls) if f.init and not f.metadata.get("resource")}  # type: ignore[arg-type]
        if len(spec.positional) > len(options):
            raise SpecError(f"{spec.name} takes at most {len(options)} arguments: {_signature(cls)}")
        arguments: dict[str, Any] = dict(zip(options, spec.positional, strict=False))
        for key, value in spec.named:
            if key not in options:
                raise SpecError(f"{spec.name} has no argument {key!r}; it takes: {_signature(cls)}")
            if key in arguments:
                raise SpecError(f"{spec.name} is given {key!r} twice")
            arguments[key] = value
        needed = {f.name for f in fields(cls) if f.metadata.get("resource")}  # type: ignore[arg-type]
        hints = _hints(cls)
        for key, value in arguments.items():
            try:
                arguments[key] = TypeAdapter(hints[key]).validate_python(value)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise SpecError(f"{spec.name}: {key}={value!r} is not usable: {reason}") from None
        missing = needed - resources.keys()
        if missing:
            raise TypeError(f"{spec.name} needs the resource {', '.join(sorted(missing))}")
        try:
            return cls(**arguments, **{key: resources[key] for key in needed})
        except (ValueError, TypeError) as error:
            raise SpecError(f"{spec}: {error}") from error

    @property
    def _one(self) -> str:
        """What one method of the family is called."""
        return self.name[:-3] + "y" if self.name.endswith("ies") else self.name[:-1]

    @property
    def _group(self) -> str:
        return f"longreach.{self.name}"


def canonical(family: Family[Any], method: Any) -> str:
    """The spec string that makes `method` again, every option written out."""
    name = next(name for name, cls in family._classes.items() if cls is type(method))
    options = [f for f in fields(method) if f.init and not f.metadata.get("resource")]
    return str(Spec(name, (), tuple((f.name, getattr(method, f.name)) for f in options)))


def _hints(cls: Any) -> dict[str, Any]:
    from typing import get_type_hints

    # A field may be inherited: its type is written in the words of the module it comes from.
    modules = [vars(importlib.import_module(base.__module__)) for base in reversed(cls.__mro__)]
    names = {Spec.__name__: Spec, **{name: value for module in modules for name, value in module.items()}}
    options = [f for f in fields(cls) if f.init and not f.metadata.get("resource")]
    only = type("Options", (), {"__annotations__": {f.name: f.type for f in options}})
    return get_type_hints(only, globalns=names, include_extras=True)


def _signature(cls: Any) -> str:
    options = [f.name for f in fields(cls) if f.init and not f.metadata.get("resource")]
    return ", ".join(options) or "no arguments"
