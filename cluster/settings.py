"""One configuration model a command, read from the command line, the environment and a YAML file, in that order.

Guaranteed: an unknown key, a wrong type or an impossible pair is a UsageError of one line that names the key, the value
and what is expected, raised before any work. Environment: TANDEM_KEY, nested keys by two underscores
(TANDEM_EMBEDDER__ENGINE). Not guaranteed: anything about environment variables that name no key; they are not read.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ray_jobs.errors import UsageError

ENV_PREFIX = "TANDEM_"
SHORTCUTS = {"json-output": "json", "k": "top-k", "output-kind": "as", "as-name": "as"}  # flags besides the key's name


class Command(BaseModel):
    """What every command takes besides its own configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path | None = Field(None, description="YAML file with any of these keys")
    json_output: bool = Field(False, description="print one JSON object, for machines")

    @classmethod
    def keys_of(cls, loaded: dict[str, Any]) -> dict[str, Any]:
        """The keys of this command in what its YAML file holds; a command whose files have another form says how."""
        return loaded


C = TypeVar("C", bound=Command)


def read(model: type[C], arguments: Sequence[str], name: str) -> C:
    """The configuration of command `name`; exits with the help text where that is asked for."""
    settings = _settings_class(model, name, list(arguments))
    try:
        return cast("C", settings())
    except ValidationError as error:
        raise UsageError(f"tandem {name}: {_explain(error)}") from None
    except SettingsError as error:
        raise UsageError(f"tandem {name}: {_explain_source(error)}; see 'tandem {name} --help'") from None


def _settings_class(model: type[C], name: str, arguments: list[str]) -> type[BaseSettings]:
    class Settings(model, BaseSettings):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(
            cli_prog_name=f"tandem {name}",
            cli_kebab_case=True,
            cli_implicit_flags="toggle",
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_enforce_required=False,
            cli_exit_on_error=False,
            # Not as aliases: those would be read from the environment without the prefix.
            cli_shortcuts={key: flag for key, flag in SHORTCUTS.items() if key.replace("-", "_") in model.model_fields},
            env_prefix=ENV_PREFIX,
            env_nested_delimiter="__",
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Command line, then environment, then file."""
            command_line: CliSettingsSource[Any] = CliSettingsSource(settings_cls, cli_parse_args=arguments)
            return command_line, EnvSettingsSource(settings_cls), _file_source(settings_cls, command_line)

    Settings.__doc__ = model.__doc__
    return Settings


def _file_source(settings: Any, command_line: CliSettingsSource[Any]) -> InitSettingsSource:
    path = command_line().get("config") or os.environ.get(f"{ENV_PREFIX}CONFIG")
    return InitSettingsSource(settings, {} if path is None else settings.keys_of(read_yaml(Path(path))))


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file; raises UsageError for a file that is missing, unreadable or no mapping."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"config={path}: {error.strerror}; expected a readable YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"config={path}: not YAML ({reason}); expected keys and values") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UsageError(f"config={path}: holds a {type(loaded).__name__}; expected keys and values, as in 'k: 10'")
    if "config" in loaded:
        raise UsageError(f"config={path}: names another file in 'config'; expected all keys in one file")
    return loaded


def _explain(error: ValidationError) -> str:
    """The first problem, and how many more there are; an unknown key first, which may be the one that is missing."""
    problems = error.errors()
    first = next((item for item in problems if item["type"] == "extra_forbidden"), problems[0])
    # Below a union each member reports for itself, under a place of its own: one problem, several expectations.
    place = [str(part) for part in first["loc"] if "[" not in str(part)]
    alike = [item for item in problems if item["input"] is first["input"]]
    key = ".".join(place)
    message = " or ".join(dict.fromkeys(_lower(item["msg"].removeprefix("Value error, ")) for item in alike))
    if first["type"] == "missing":
        text = f"{key} is missing: give --{key.replace('_', '-')}"
    elif first["type"] == "extra_forbidden":
        meant = f"did you mean {key.replace('-', '_')}? " if "-" in key else ""
        text = f"{key}={first['input']!r}: unknown key; {meant}'tandem COMMAND --help' lists those of each command"
    else:
        # An impossible pair names its keys itself.
        named = not isinstance(first["input"], Mapping)
        text = f"{key}={first['input']!r}: {message}" if key and named else f"{key}: {message}" if key else message
    more = len(problems) - len(alike)
    return f"{text} (and {more} more)" if more else text


def _explain_source(error: SettingsError) -> str:
    """What is wrong with the command line, or with an environment variable that is not JSON."""
    reason = " ".join(str(error).removeprefix("error parsing CLI: ").split())
    field = re.search(r'error parsing value for field "(\w+)" from source "EnvSettingsSource"', reason)
    if field is not None:
        key = f"{ENV_PREFIX}{field[1].upper()}"
        return f"{key}={os.environ.get(key, '')!r}: expected JSON, or one of its keys as in {key}__KEY"
    extra = re.fullmatch(r"unrecognized arguments: ([^-].*)", reason)
    return f"{extra[1]!r} is one argument too many; put a text of several words in quotes" if extra else reason


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def show(text: str) -> None:
    """Print a result to standard output."""
    print(text, file=sys.stdout)
