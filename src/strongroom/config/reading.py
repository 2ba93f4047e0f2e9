"""Reading settings: the file and the environment laid over each other, every name known, every value of its type."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast, get_args, get_origin, get_type_hints

import msgspec

from strongroom.config.settings import LOWER, UPPER, Config, ConfigError, Node

PREFIX: Final = "STRONGROOM_"
OUTSIDE: Final = frozenset({"STRONGROOM_MASTER_KEY", "STRONGROOM_CONFIG", "STRONGROOM_NODES"})
"""Variables of ours that are no settings: the master key itself, and where the settings file and a demo's nodes are."""

_NEAR: Final = 0.5
_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_PATHS: Final = ("data", "master_key_file", "admin_socket", "signer_socket")
_STORE: Final = "postgresql://"
_PLACE: Final = "<{}>"
_MANDATORY: Final = "mandatory"


class Text(str):
    """A value from the environment: a text, whatever type its setting has."""

    __slots__ = ()


class Setting(NamedTuple):
    """One setting for the reference: dotted name, type, default as TOML would spell it, and what it is for."""

    name: str
    type: str
    default: str
    description: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper().replace(".", "__")


class Field(NamedTuple):
    """A declared setting: the type without and with its constraints, what it is for, and how its keys are spelt."""

    kind: Any
    declared: Any
    description: str
    keys: str
    default: Any


def fields_of(kind: type[msgspec.Struct]) -> dict[str, Field]:
    """Return the declared fields of a struct by name."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, Field] = {}
    for field in msgspec.structs.fields(kind):
        declared = hints[field.name]
        metas = [meta for meta in get_args(declared)[1:] if isinstance(meta, msgspec.Meta)]
        description = next((meta.description for meta in metas if meta.description), "")
        keys = next((meta.extra["keys"] for meta in metas if meta.extra), "")
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        found[field.name] = Field(_bare(declared), declared, description, keys, default)
    return found


def _bare(declared: Any) -> Any:
    return get_args(declared)[0] if get_origin(declared) is Annotated else declared


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _members(kind: Any) -> Any:
    """Return what a table by name holds, a struct or one more table of structs; None for anything else."""
    if get_origin(kind) is not dict:
        return None
    member = get_args(kind)[1]
    return member if _is_struct(member) or _members(member) is not None else None


def read_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Return the settings; see `settings.load_config`."""
    tree = _file_tree(path) if path else {}
    reading = _Reading()
    _lay_over(tree, environ)
    config = cast(Config, reading.struct(Config, tree, ""))
    # Without what was given: there may be a password in it.
    if config and config.store and not config.store.startswith(_STORE):
        reading.problems.append(f"setting 'store' must be empty or begin with {_STORE}")
    if reading.problems:
        raise ConfigError(reading.problems)
    return _placed(config, path)


def _placed(config: Config, path: Path | None) -> Config:
    """Return the settings with every path absolute, and the table of prices dated."""
    changes: dict[str, Any] = {}
    base = path.resolve().parent if path else Path.cwd()
    for name in _PATHS:
        if value := getattr(config, name):
            changes[name] = str(base / Path(value).expanduser())
    if config.nodes:
        changes["nodes"] = {code: _placed_node(node, base) for code, node in config.nodes.items()}
    if config.rates.table and not config.rates.table_as_of:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC) if path else datetime.now(UTC)
        as_of = written.isoformat(timespec="seconds")
        changes["rates"] = msgspec.structs.replace(config.rates, table_as_of=as_of)
    return msgspec.structs.replace(config, **changes)


def _placed_node(node: Node, base: Path) -> Node:
    if not node.password_file:
        return node
    return msgspec.structs.replace(node, password_file=str(base / Path(node.password_file).expanduser()))


def _file_tree(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).decode()
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError([f"cannot read the settings file {path}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} is not TOML: {error}"]) from None


def _lay_over(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Put the environment's texts into the tree, over the file's values."""
    for variable, text in environ.items():
        if not variable.upper().startswith(PREFIX) or variable in OUTSIDE:
            continue
        *tables, last = variable[len(PREFIX) :].lower().split("__")
        node = tree
        for table in tables:
            name = _spelt_in(node, table)
            if not isinstance(node.get(name), dict):
                node[name] = {}
            node = node[name]
        node[_spelt_in(node, last)] = Text(text)


def _spelt_in(node: Mapping[str, Any], name: str) -> str:
    return next((known for known in node if known.lower() == name), name)


class _Reading:
    """One pass over the tree that notes every mistake instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def struct(self, kind: type[msgspec.Struct], tree: Any, at: str) -> msgspec.Struct | None:
        """Return the struct that a table of the tree spells, or None after noting why there is none."""
        if not isinstance(tree, dict):
            self.problems.append(f"setting '{at}' must be a table, not {_said(tree)}")
            return None
        fields, values = fields_of(kind), dict[str, Any]()
        table = cast(dict[str, Any], tree)
        for name, value in table.items():
            if name in fields:
                values[name] = self.value(fields[name], value, _dotted(at, name))
            else:
                self.unknown(_dotted(at, name), value)
        missing = [name for name, field in fields.items() if field.default is msgspec.NODEFAULT and name not in table]
        self.problems += [f"setting '{_dotted(at, name)}' is missing" for name in missing]
        if missing or any(value is None for value in values.values()):
            return None
        return kind(**values)

    def value(self, field: Field, value: Any, at: str) -> Any:
        """Return a setting's value, or None after noting what is wrong with it."""
        if _is_struct(field.kind):
            return self.struct(field.kind, value, at)
        members = _members(field.kind)
        if members is not None:
            return self.table(members, field, value, at)
        return self.leaf(field.declared, value, at)

    def table(self, members: Any, field: Field, value: Any, at: str) -> dict[str, Any] | None:
        """Return a table of structs by names of the operator's choice."""
        if not isinstance(value, dict):
            self.problems.append(f"setting '{at}' must be a table, not {_said(value)}")
            return None
        found: dict[str, Any] = dict(cast(dict[str, Any], field.default))
        for name, member in cast(dict[str, Any], value).items():
            key = _spelt(name, field.keys)
            inner = field._replace(kind=members, declared=members, default={})
            if (read := self.value(inner, member, _dotted(at, key))) is not None:
                found[key] = read
        return found

    def leaf(self, declared: Any, value: Any, at: str) -> Any:
        """Return a single value of its type."""
        given = _from_text(declared, value) if isinstance(value, Text) else value
        try:
            return msgspec.convert(given, declared, strict=not isinstance(value, Text))
        except msgspec.ValidationError as error:
            self.problems.append(f"setting '{at}' must be {type_text(declared)}, not {_said(value)}: {error}")
            return None

    def unknown(self, name: str, value: Any) -> None:
        """Note a setting that does not exist, once for each value in it, with the nearest that does."""
        if isinstance(value, dict) and value:
            for inner, member in cast(dict[str, Any], value).items():
                self.unknown(_dotted(name, inner), member)
            return
        near = difflib.get_close_matches(name, _known_names(name), 1, _NEAR)
        hint = f", did you mean '{near[0]}'?" if near else ""
        self.problems.append(f"unknown setting '{name}'{hint}")


def _known_names(like: str) -> list[str]:
    """Return every name that a setting or a table can have, with the operator's names as `like` has them."""
    parts = like.split(".")
    names: list[str] = []
    for name, _ in _walk(Config, ""):
        steps = name.split(".")
        filled = [parts[i] if step.startswith("<") and i < len(parts) - 1 else step for i, step in enumerate(steps)]
        names.append(".".join(filled))
        if "<tier>" in steps:
            names.append(name.replace("<tier>", "default"))
    return names


def _walk(kind: Any, at: str) -> Iterator[tuple[str, Field]]:
    """Yield every setting and table below a struct, the operator's names as places such as `<asset>`."""
    for name, field in fields_of(kind).items():
        here = _dotted(at, name)
        yield here, field
        member, places = field.kind, iter(_PLACES.get(here, ()))
        while _members(member) is not None:
            here, member = _dotted(here, _PLACE.format(next(places))), _members(member)
            yield here, field._replace(kind=member, declared=member)
        if _is_struct(member):
            yield from _walk(member, here)


_PLACES: Final = {
    "rate_limits": ("tier",),
    "assets": ("asset",),
    "nodes": ("network",),
    "nodes.<network>.hot": ("asset",),
    "networks": ("network",),
    "offers": ("asset", "network"),
}


def all_settings() -> list[Setting]:
    """Return every setting there is, in the order of their declaration."""
    found: list[Setting] = []
    for name, field in _walk(Config, ""):
        if not _is_struct(field.kind) and _members(field.kind) is None:
            found.append(Setting(name, type_text(field.declared), _default_text(field.default), field.description))
    return found


_PREAMBLE: Final = """\
# Settings

A TOML file (`strongroom serve --config FILE`) and environment variables; a variable wins. The variable of `rates.ecb`
is `STRONGROOM_RATES__ECB`: upper case, two underscores for a dot, lists split at commas, tables as JSON. Amounts and
rates are texts in quotes, so that no digit is lost. An unknown setting stops the start.

`STRONGROOM_MASTER_KEY` is no setting: it has the master key itself, in hex or base64, and wins over `master_key_file`.
Names in angle brackets are yours to choose: `assets.<asset>.name` is `[assets.BTC]` with `name = "Bitcoin"`.

Assets, networks and offers are first values: once the books know them, the file only adds new ones. What is in the
books is changed by the operator's commands.

| setting | takes | default | what it is |
|---|---|---|---|"""


def settings_page() -> str:
    """Return the reference page of all settings, in Markdown."""
    lines = [_PREAMBLE]
    for setting in all_settings():
        cells = (f"`{setting.name}`", setting.type, _default_cell(setting.default), setting.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default_cell(default: str) -> str:
    return default if default == _MANDATORY else f"`{default}`"


def _default_text(default: Any) -> str:
    return _MANDATORY if default is msgspec.NODEFAULT else msgspec.json.encode(default).decode()


def type_text(declared: Any) -> str:
    """Return a type in the operator's words."""
    kind = _bare(declared)
    if get_origin(kind) is tuple:
        return f"a list ({type_text(get_args(kind)[0])} each)"
    if get_origin(kind) is dict:
        return f"a table ({type_text(get_args(kind)[1])} each)"
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
    patterns = [meta.pattern for meta in get_args(declared)[1:] if isinstance(meta, msgspec.Meta) and meta.pattern]
    if patterns and patterns[0].startswith("^("):
        return "one of " + ", ".join(f"`{word}`" for word in patterns[0][2:-2].split("|"))
    return 'a decimal in quotes such as "0.1"' if patterns else words[kind]


def _from_text(declared: Any, text: Text) -> Any:
    """Return what an environment variable's text means: lists are split at commas, tables are JSON."""
    kind = _bare(declared)
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if get_origin(kind) is dict:
        try:
            return msgspec.json.decode(text.encode())
        except msgspec.DecodeError:
            return str(text)
    return str(text)


def _spelt(name: str, keys: str) -> str:
    return name.upper() if keys == UPPER else name.lower() if keys == LOWER else name


def _dotted(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _said(value: Any) -> str:
    text = "a table" if isinstance(value, dict) else repr(str(value) if isinstance(value, Text) else value)
    return text if len(text) <= 60 else text[:57] + "..."
