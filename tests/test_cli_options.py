"""`qed` without a server: help, wrong usage, completion, and the page that documents it all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

from commands import QED, environment, one_line, qed
from qed import __version__

COMMANDS = (
    "add",
    "membership",
    "incremental",
    "snapshot",
    "verify",
    "info",
    "cluster",
    "keys",
    "check",
    "certs",
    "log-key",
    "witness",
    "completion",
)
GROUPS = ("cluster", "keys", "certs", "log-key", "witness")
GROUPED = (
    "cluster status",
    "cluster remove",
    "cluster replace",
    "cluster transfer",
    "keys create",
    "keys list",
    "keys revoke",
    "certs ca",
    "certs server",
    "certs client",
    "certs csr",
    "log-key generate",
    "log-key show",
    "witness run",
    "witness status",
    "witness evidence",
)
PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
OPTION = re.compile(r"--[a-z][a-z-]*")
DEAD = "http://127.0.0.1:1"


def examples(page: str) -> list[str]:
    """Return the command lines under "Examples:"."""
    return [line.strip() for line in page.partition("Examples:\n")[2].splitlines() if line.strip()]


@cache
def asked_for_help(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with `--help`; several tests read the same pages."""
    return qed(*words, "--help")


def options(page: str) -> set[str]:
    """Return the options that a help page lists."""
    return {found[0] for line in page.splitlines() if (found := OPTION.match(line.strip()))}


def test_help_lists_every_command_and_exit_code() -> None:
    done = asked_for_help()
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z].*[^.]\.$", done.stdout, re.MULTILINE), name
    for code in (0, 1, 2, 3, 4, 130, 141):
        assert re.search(rf"^  {code}  +[a-z]", done.stdout, re.MULTILINE), code
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [name for name in (*COMMANDS, *GROUPED) if name not in GROUPS])
def test_every_command_shows_examples_that_use_its_own_options(name: str) -> None:
    done = asked_for_help(*name.split())
    assert done.returncode == 0
    shown = [line for line in examples(done.stdout) if f" {name}" in line]
    assert shown
    known = options(done.stdout)
    for line in shown:
        assert set(OPTION.findall(line.partition("qed ")[2])) <= known, line


@pytest.mark.parametrize("page", [(), *(tuple(name.split()) for name in (*COMMANDS, *GROUPED))])
def test_help_fits_80_columns(page: tuple[str, ...]) -> None:
    assert max(len(line) for line in asked_for_help(*page).stdout.splitlines()) <= 80


def test_no_command_shows_help_and_is_wrong_usage() -> None:
    done = qed()
    assert "Commands:" in done.stderr
    assert (done.stdout, done.returncode) == ("", 2)


def test_the_version_is_the_packages() -> None:
    done = qed("--version")
    assert (done.stdout, done.returncode) == (f"qed {__version__}\n", 0)
    assert __version__ == version("qed-log")


@pytest.mark.parametrize(
    "args",
    [
        ("remove",),
        ("add", "--evnet", "x"),
        ("add", "--event"),
        ("add", "x"),
        ("snapshot",),
        ("snapshot", "--version", "-1"),
        ("snapshot", "--version", "1.5"),
        ("snapshot", "--version", str(2**64)),
        ("snapshot", "--version", "9" * 100_000),
        ("snapshot", "--version", "1_0"),
        ("snapshot", "--version", ""),
        ("membership",),
        ("membership", "--event", "x", "--event-digest", "00" * 32),
        ("membership", "--event-digest", "00" * 31),
        ("membership", "--event-digest", "zz" * 32),
        ("membership", "--event-digest", "\N{DIGIT ZERO}" * 63 + "\N{FULLWIDTH DIGIT ZERO}"),
        ("membership", "--event", "x", "--hyper-digest", ""),
        ("incremental", "--start", "0"),
        ("verify",),
        ("completion", "tcsh"),
        ("--endpoints", "127.0.0.1:8800", "info"),
        ("--endpoints", "ftp://127.0.0.1", "info"),
        ("--endpoints", "http://", "info"),
        ("--endpoints", "http://127.0.0.1:99999", "info"),
        ("--endpoints", "http://user:password@127.0.0.1", "info"),
        ("--endpoints", "http://127.0.0.1/?query", "info"),
        ("--endpoints", "http://[::1", "info"),
        ("--endpoints", "http://xn--", "info"),
        ("--endpoints", "", "info"),
        ("--timeout", "0", "info"),
        ("--timeout", "-1", "info"),
        ("--timeout", "nan", "info"),
        ("--timeout", "inf", "info"),
        ("--timeout", "soon", "info"),
        ("--api-key", "line\nbreak", "info"),
        ("--log", "loud", "info"),
        ("add", "--lines", "-", "--linger", "-1"),
        ("add", "--lines", "-", "--linger", "nan"),
        ("add", "--event", "x", "--linger", "1"),
        ("cluster", "remove", "\udcff"),
        ("cluster", "transfer", "\udcff"),
        ("cluster", "remove", ""),
    ],
    ids=lambda args: " ".join(args)[:60],
)
def test_wrong_usage_is_one_line_and_its_own_exit_code(args: tuple[str, ...]) -> None:
    done = qed(*args, QED_ENDPOINTS=DEAD)
    assert len(one_line(done.stderr)) < 1000
    assert (done.stdout, done.returncode) == ("", 2)


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (("membershp",), "'membership'"),
        (("cluster", "statsu"), "'status'"),
        (("add", "--evnt-digest", "x"), "'--event-digest'"),
        (("--endpoint", "x", "info"), "'--endpoints'"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_was_meant(args: tuple[str, ...], meant: str) -> None:
    said = one_line(qed(*args).stderr)
    assert "Did you mean" in said
    assert meant in said


def test_choices_are_listed_in_the_line_that_misses_one() -> None:
    assert "Choose from: bash, zsh, fish" in one_line(qed("completion").stderr)


def test_a_wrong_environment_is_wrong_usage() -> None:
    for name, value in (("QED_ENDPOINTS", "nonsense"), ("QED_TIMEOUT", "soon"), ("QED_LOG", "loud")):
        done = qed("info", stdin=b"", **{name: value})
        assert name in one_line(done.stderr)
        assert done.returncode == 2


def test_a_pipe_that_nobody_writes_to_holds_no_authorities(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = qed("--endpoints", "https://127.0.0.1:1", "--ca", str(tmp_path / "pipe"), "info")
    assert done.returncode == 2
    assert "cannot use the authorities in" in one_line(done.stderr)


def test_a_refused_api_key_is_not_repeated() -> None:
    for key in ("geheim\x7f", " geheim", "geheim "):
        done = qed("info", QED_API_KEY=key)
        assert "geheim" not in one_line(done.stderr)
        assert done.returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed_and_parse(shell: str) -> None:
    done = qed("completion", shell)
    assert "_QED_COMPLETE" in done.stdout
    assert done.returncode == 0
    found = shutil.which(shell)
    if found is not None:
        subprocess.run([found, "-n"], input=done.stdout.encode(), check=True, timeout=30)


def test_completion_knows_commands_options_and_choices() -> None:
    def complete(words: str) -> list[str]:
        index = str(words.count(" "))
        done = qed(_QED_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=index)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("qed mem") == ["membership"]
    assert "--trust-server" in complete("qed membership --")
    assert complete("qed completion z") == ["zsh"]


def test_a_reader_of_help_who_leaves_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([QED, "--help"], stdout=writing, stderr=subprocess.PIPE, env=environment(), check=False)
    os.close(writing)
    assert (done.stderr, done.returncode) == (b"", 141)


def test_the_page_documents_every_command_option_and_variable() -> None:
    page = PAGE.read_text()
    shown = "".join(asked_for_help(*name).stdout for name in ((), *map(str.split, (*COMMANDS, *GROUPED))))
    for option in options(shown):
        assert f"`{option}" in page, option
    for variable in re.findall(r"env var:\s+(QED_[A-Z_]+)", shown):
        assert f"`{variable}`" in page, variable
    for name in COMMANDS:
        assert f"## `qed {name}`" in page, name


def test_the_page_shows_only_options_that_exist() -> None:
    known = {name: options(asked_for_help(*name.split()).stdout) for name in (*GROUPED, *COMMANDS)}
    for line in re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE):
        for name, own in known.items():
            if re.search(rf"\bqed .*\b{name}( |$)", line):
                used = OPTION.findall(line.partition("qed ")[2].partition(" | ")[0])
                assert set(used) <= own | {"--version"}, line
                break


@pytest.mark.parametrize("options", [("--ca", "x.pem"), ("--cert", "x.pem", "--cert-key", "x.key")])
def test_certificates_need_an_endpoint_with_tls(tmp_path: Path, options: tuple[str, ...]) -> None:
    for name in ("x.pem", "x.key"):
        (tmp_path / name).write_text("not looked at")
    given = [str(tmp_path / part) if part.startswith("x.") else part for part in options]
    done = qed("--endpoints", "http://127.0.0.1:1", *given, "info")
    assert done.returncode == 2
    assert "expected an endpoint with https://, found http://127.0.0.1:1" in one_line(done.stderr)
    assert str(tmp_path / "x.pem") in one_line(done.stderr)


@pytest.mark.parametrize("args", [("verify",), ("export",), ("witness", "run"), ("log-key", "show")])
def test_the_help_of_a_command_without_a_server_has_no_options_about_servers(args: tuple[str, ...]) -> None:
    shown = qed(*args, "--help").stdout
    assert "--endpoints" not in shown
    assert "--json" in shown
    # They are accepted behind the command as well as before it.
    assert "No such option" not in qed(*args, "--endpoints", "http://localhost:1").stderr
