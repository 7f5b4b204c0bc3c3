"""The parts that all commands share: global options, types of values, the layout of a help page."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from qed._client.defaults import DEFAULT_ENDPOINT, DEFAULT_READ, DEFAULT_TIMEOUT_S
from qed._client.topology import READS, Read, is_base_url
from qed._limits import LOG_LEVELS, VERSION_LIMIT
from qed.cli.terminal import Terminal, configure_logging
from qed.proofs import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "DIGEST",
    "FILE",
    "INPUT",
    "LINEARIZABLE",
    "NODE",
    "RECEIPTS",
    "RECEIPTS_GIVEN",
    "SECONDS",
    "SHOW",
    "VERSION",
    "Command",
    "Session",
    "Settings",
    "command",
    "current_session",
    "global_options",
    "group",
    "policy_option",
    "write_examples",
]

_META: Final = "qed.settings"
_OF_OUTPUT: Final = frozenset({"--json", "--log", "--no-color"})
"""The global options that are not about servers."""
_DAY_S: Final = 86_400.0
_PRINTABLE_ASCII: Final = range(0x20, 0x7F)
_Decorated = TypeVar("_Decorated", bound="Callable[..., Any]")


class _FileName(click.Path):
    """A file to be written, which need not exist. Click would take an empty text for one."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("expected a file name, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


FILE: Final = _FileName(dir_okay=False)
INPUT: Final = click.Path(exists=True, dir_okay=False, allow_dash=True)
LINEARIZABLE: Final = click.option(
    "--linearizable", is_flag=True, help="Have the member first catch up with everything acknowledged by now."
)
RECEIPTS: Final = click.Path(exists=True, dir_okay=False)


class _DigestType(click.ParamType[Digest]):
    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Digest:  # noqa: ANN401 - click's
        if isinstance(value, Digest):
            return value
        try:
            return Digest.from_hex(value)
        except ValueError:
            self.fail(f"{value!r} is not a digest: expected 64 hex digits, found {len(value)} characters", param, ctx)


class _VersionType(click.ParamType[int]):
    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 - click's
        if isinstance(value, int):
            return value
        # A longer number is not a version either, and is slow to convert.
        version = int(value) if re.fullmatch("[0-9]{1,20}", value) else VERSION_LIMIT
        if version >= VERSION_LIMIT:
            self.fail(f"{value!r} is not a version: expected a whole number from 0 to 2**64 - 1", param, ctx)
        return version


class _EndpointsType(click.ParamType[tuple[str, ...]]):
    name = "url[,url...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:  # noqa: ANN401 - click's
        if isinstance(value, tuple):
            return value
        urls = tuple(url.strip().rstrip("/") for url in value.split(",") if url.strip())
        for url in urls:
            if not is_base_url(url):
                # What stands before an @ may be a password.
                shown = "an endpoint" if "@" in url else repr(url)
                self.fail(
                    f"{shown} is not a URL such as {DEFAULT_ENDPOINT}, without user, query or fragment", param, ctx
                )
        if not urls:
            self.fail(f"expected at least one URL such as {DEFAULT_ENDPOINT}", param, ctx)
        return urls


class _SecondsType(click.ParamType[float]):
    name = "seconds"

    def __init__(self, *, has_zero: bool) -> None:
        self._has_zero = has_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (0 < seconds <= _DAY_S or (self._has_zero and seconds == 0)):
            least = "of at least 0" if self._has_zero else "above 0"
            self.fail(f"{value!r} is not a number of seconds {least} and at most {_DAY_S:.0f}", param, ctx)
        return seconds


class _NodeType(click.ParamType[str]):
    name = "node"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's
        if not (value and value.isprintable()):
            self.fail(f"invalid member name {value!r}: expected printable text, not empty", param, ctx)
        return str(value)


class _KeyType(click.ParamType[str]):
    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's
        if not all(ord(char) in _PRINTABLE_ASCII for char in value) or value != value.strip():
            # The key itself is a secret and stays out of the message.
            self.fail("expected printable ASCII without a space at either end, as in any HTTP header", param, ctx)
        return str(value)


DIGEST: Final = _DigestType()
NODE: Final = _NodeType()
VERSION: Final = _VersionType()
SECONDS: Final = _SecondsType(has_zero=True)
RECEIPTS_GIVEN: Final = click.option(
    "--receipts",
    type=click.Path(exists=True),
    multiple=True,
    metavar="FILE|DIR",
    help="What the log gave to clients must be in it. Can be repeated.",
)
SHOW: Final = click.option("--show", is_flag=True, help="Draw the audit paths as a tree.")


def policy_option(
    text: str = "The keys of logs and witnesses that you trust.", *, is_required: bool = True
) -> Callable[[_Decorated], _Decorated]:
    """Return the option that names a policy.

    Args:
        text: Its help.
        is_required: Whether the command always needs one.
    """
    return click.option(
        "--policy",
        required=is_required,
        type=RECEIPTS,
        metavar="PATH",
        envvar="QED_POLICY",
        show_envvar=True,
        help=text,
    )


@dataclass(frozen=True)
class Settings:
    """The values of the global options.

    Attributes:
        endpoints: Base URLs of the servers, in the order to try them.
        timeout_s: How long one request may take.
        api_key: Sent as `Api-Key`, or None.
        ca: File with the authorities to trust, or None for those of the system.
        certificate: File with the certificate of this client, or None.
        certificate_key: File with the key of the certificate.
        trust_members: Whether the key and events may go to members that servers name.
        is_insecure: Whether the server's certificate is not checked.
        is_json: Whether programs read stdout.
        log_level: Lowest level of the log records sent to stderr, or None for no log.
        is_plain: Whether to print no colours.
        read: Which members answer reads.
    """

    endpoints: tuple[str, ...] = (DEFAULT_ENDPOINT,)
    timeout_s: float = DEFAULT_TIMEOUT_S
    api_key: str | None = None
    ca: str | None = None
    certificate: str | None = None
    certificate_key: str | None = None
    trust_members: bool = False
    is_insecure: bool = False
    is_json: bool = False
    log_level: str | None = None
    is_plain: bool = False
    read: Read = DEFAULT_READ


@dataclass(frozen=True)
class Session:
    """The state of one run of a command.

    Attributes:
        settings: The values of the global options.
        terminal: Prints the answer.
    """

    settings: Settings
    terminal: Terminal


def current_session() -> Session:
    """Return the session of the running command, and start logging if `--log` was given."""
    settings = Settings(**click.get_current_context().meta.get(_META, {}))
    if settings.log_level is not None:
        configure_logging(settings.log_level)
    return Session(settings, Terminal(is_json=settings.is_json, has_color=not settings.is_plain))


class GlobalOption(click.Option):
    """An option that may be given before or after the command; the value after it wins."""


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:  # noqa: ANN401 - of each option's own type
    """Store the value of a global option; the command's own context runs after the group's and so overrides it."""
    if value is None or value == ():
        return
    if option.multiple:
        value = tuple(chain.from_iterable(value))
    context.meta.setdefault(_META, {})[option.name] = value


def _global_option(has_environment: bool, name: str, target: str, help_text: str, **kind: Any) -> GlobalOption:  # noqa: ANN401 - click's own keywords; bound by `partial`
    variable = "QED_" + name.removeprefix("--").replace("-", "_").upper() if has_environment else None
    kind.setdefault("default", None)
    return GlobalOption(
        [name, target],
        help=help_text,
        envvar=variable,
        show_envvar=True,
        expose_value=False,
        callback=_keep,
        **kind,
    )


def _security_options(option: Callable[..., GlobalOption]) -> list[GlobalOption]:
    return [
        option("--api-key", "api_key", "Key to send in the Api-Key header.", type=_KeyType()),
        option("--ca", "ca", "File with the authorities that servers' certificates must come from.", type=RECEIPTS),
        option("--cert", "certificate", "Certificate of this client, if servers know it by one.", type=RECEIPTS),
        option("--cert-key", "certificate_key", "Key of --cert.", type=RECEIPTS),
        option(
            "--trust-members",
            "trust_members",
            "Send the key and events also to members that a server names without TLS.",
            is_flag=True,
        ),
        option("--insecure", "is_insecure", "Do not check the server's certificate.", is_flag=True),
    ]


def global_options(*, has_environment: bool) -> list[click.Parameter]:
    """Return fresh copies of the global options.

    Args:
        has_environment: Whether they also read `QED_*`. Only the options before the command do: if those after it did
            too, the environment would override a value given before the command.

    Returns:
        One parameter per option.
    """
    option = partial(_global_option, has_environment)
    return [
        option(
            "--endpoints",
            "endpoints",
            f"Servers to try, in this order; can be repeated. Default: {DEFAULT_ENDPOINT}.",
            type=_EndpointsType(),
            multiple=True,
        ),
        option(
            "--timeout",
            "timeout_s",
            f"Time limit for one request. Default: {DEFAULT_TIMEOUT_S:g}.",
            type=_SecondsType(has_zero=False),
        ),
        option(
            "--read",
            "read",
            f"Members to read from: the leader, the others, or all in turn. Default: {DEFAULT_READ}.",
            type=click.Choice(READS),
        ),
        *_security_options(option),
        option("--json", "is_json", "Print JSON for programs, one value per line.", is_flag=True),
        option(
            "--log",
            "log_level",
            "Log to stderr at this level and above.",
            type=click.Choice(LOG_LEVELS, case_sensitive=False),
        ),
        option("--no-color", "is_plain", "Print no colours; NO_COLOR does the same.", is_flag=True),
    ]


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write the examples of a help page, each on its own line, never wrapped.

    Args:
        formatter: Formats the help page.
        examples: Command lines.
    """
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Command(click.Command):
    """A command whose help has examples, and lists the global options apart from its own."""

    examples: tuple[str, ...] = ()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the global ones.

        Args:
            ctx: The command's context.
            formatter: Formats the help page.
        """
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples.

        Args:
            ctx: The command's context.
            formatter: Formats the help page.
        """
        del ctx
        write_examples(formatter, self.examples)


class Group(Command, click.Group):
    """Commands under one name, with the global options and examples."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options.

        Args:
            ctx: The group's context.
            formatter: Formats the help page.
        """
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


_Kind = TypeVar("_Kind", bound=Command)


def _write_options(owner: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    for title, is_global in (("Options", False), ("Global options", True)):
        chosen = [param for param in owner.get_params(ctx) if isinstance(param, GlobalOption) is is_global]
        rows = [row for row in (param.get_help_record(ctx) for param in chosen) if row is not None]
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def group(name: str, *, examples: Sequence[str]) -> Callable[[Callable[..., None]], Group]:
    """Return a decorator that makes a function a group of commands; arguments as for `command`."""
    return _decorator(Group, name, examples)


def command(
    name: str, *, examples: Sequence[str], is_offline: bool = False
) -> Callable[[Callable[..., None]], Command]:
    """Return a decorator that makes a function a command with the global options.

    Args:
        name: Name of the command. Its help is the function's docstring.
        examples: Command lines to show in its help.
        is_offline: Whether it connects to no server. Then its help leaves out the options that are about servers. They
            are accepted all the same: those before the command are.

    Returns:
        The decorator.
    """
    return _decorator(Command, name, examples, is_offline=is_offline)


def _decorator(
    kind: type[_Kind], name: str, examples: Sequence[str], *, is_offline: bool = False
) -> Callable[[Callable[..., None]], _Kind]:
    def decorate(function: Callable[..., None]) -> _Kind:
        built = click.command(name, cls=kind)(function)
        built.examples = tuple(examples)
        # A command that connects to no server may use the name of a global option for one of its own.
        own = {name for param in built.params for name in param.opts}
        added = [param for param in global_options(has_environment=False) if own.isdisjoint(param.opts)]
        for param in added:
            if is_offline and isinstance(param, click.Option) and _OF_OUTPUT.isdisjoint(param.opts):
                param.hidden = True
        built.params.extend(added)
        return built

    return decorate
