"""All text for users is plain English: the documents, the help and the error messages."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click
import pytest

from documents import DOCUMENTS, ROOT, prose_of
from qed.cli.main import _ROOT
from qed.server.main import main as qed_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Idiom:
    """A construction that a native-speaking engineer would not write.

    Attributes:
        pattern: A regular expression that detects it.
        example: A sentence that contains it.
        plain: The plain way to write that.
    """

    pattern: str
    example: str
    plain: str


IDIOMS: Final = (
    Idiom(r"\bwho(m)?ever\b", "It is sent again, to whoever leads.", "It is sent again, to the current leader."),
    Idiom(r"\bwhom\b", "Who leads, and whom to ask.", "Which member leads, and which one to ask."),
    Idiom(
        r"\b(to|for|from|by) who (is|has|adds|asks|knows|opens|wants)\b",
        "The option is for who wants the speed.",
        "The option is for callers that need the speed.",
    ),
    Idiom(r"(^|[.:;,] )[Ww]ho is \w+ is\b", "Who is down is a member too.", "A stopped server is still a member."),
    Idiom(
        r"(?<![Tt]here )\b(is|are|was|were) none\b",
        "Its management address is none.",
        "Its management address is invalid.",
    ),
    Idiom(
        r"(?<!there )\b(is|are|was|were) no (?!more|less|other|different|\w+er\b)[a-z]+",
        "'x' is no name of a member.",
        "'x' is not a valid member name.",
    ),
    Idiom(r"\bupside down\b", "The range is upside down.", "The start is after the end."),
    Idiom(r"\b[Ll]et (nobody|nothing|no one)\b", "Let nobody in.", "Refuse new connections."),
    Idiom(r"\bfor ever\b", "It waits for ever.", "It waits without a limit."),
    Idiom(
        r"\b(hear|hears|heard|told|tells?) of\b(?! the)", "The member was not heard of.", "The member did not answer."
    ),
    Idiom(r"\bsaid so\b", "Until the server has said so.", "Until the server has confirmed it."),
    Idiom(r"\bof (its|their|one's) own accord\b", "It ends of its own accord.", "It ends by itself."),
    Idiom(r"\bso many\b(?! \w+ that)", "It waits so many seconds.", "It waits for that many seconds."),
    Idiom(r"\banew\b", "The tree is built anew.", "The tree is rebuilt."),
    Idiom(
        r"\b[Ww]hat (of|is of|becomes? of|became of)\b", "What became of the request.", "The outcome of the request."
    ),
    Idiom(r"\b(comes?|came) to (it|that|this|an end|nothing)\b", "It seldom comes to that.", "That seldom happens."),
    Idiom(r"\b(is|are|was|were) gone\b", "The connection is gone.", "The connection was closed."),
    Idiom(r"\bof the name\b", "The member of the name x.", "Member x."),
    Idiom(r"\b(not|never) suffices?\b", "The receipts do not suffice.", "The receipts are not enough."),
    Idiom(r"\bshall\b", "Nobody shall see them.", "No one can see them."),
    Idiom(r"\bin vain\b", "It waited in vain.", "It timed out."),
    Idiom(r"\bbr(eaks?|oken|oke) off\b", "A transfer that breaks off.", "An interrupted transfer."),
    Idiom(
        r"(^|[.:;] )Not (the|an?) \w+ [^.]*\b(is|are)\b", "Not the end is waited for.", "It does not wait for the end."
    ),
    Idiom(r"\b(is|are|stands?) there twice\b", "A field is there twice.", "A field is duplicated."),
    Idiom(r"\bknows better\b", "What the caller knows better.", "What the caller knows already."),
    Idiom(r"\b(is|are|was|were) told (of|that|to)\b", "It is told of the change.", "It learns about the change."),
)

NOT_YET: Final[tuple[str, ...]] = ()
"""Texts that still contain some of these, to be fixed and removed from this list."""


def documents() -> Iterator[tuple[str, str]]:
    """Yield the documents, without their code."""
    for path in DOCUMENTS:
        yield str(path.relative_to(ROOT)), prose_of(path.read_text())


def pages_of(command: click.Command, *names: str) -> Iterator[tuple[str, str]]:
    """Yield the help of a command and of all commands below it."""
    context = click.Context(command, info_name=" ".join(names), terminal_width=10_000)
    yield f"{' '.join(names)} --help", command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from pages_of(below, *names, name)


def python_strings_in(source: str) -> str:
    """Return the strings of Python source, without its docstrings."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documentation]
    return "; ".join(node.value for node in found if isinstance(node.value, str))


def rust_strings_in(source: str) -> str:
    """Return the strings of Rust source, without its tests and comments."""
    code = re.sub(r"^\s*//.*", "", source.partition("\n#[cfg(test)]")[0], flags=re.MULTILINE)
    return "; ".join(re.findall(r'"((?:[^"\\]|\\.)*)"', code))


def messages() -> Iterator[tuple[str, str]]:
    """Yield the strings of each source file, which include all text that is raised, logged or shown."""
    for strings_in, pattern in ((python_strings_in, "python/**/*.py"), (rust_strings_in, "rust/*/src/**/*.rs")):
        for path in sorted(set(ROOT.glob(pattern)) - set(ROOT.glob("rust/**/tests.rs"))):
            yield f"strings of {path.relative_to(ROOT)}", strings_in(path.read_text())


TEXTS: Final = dict([*documents(), *pages_of(_ROOT, "qed"), *pages_of(qed_server, "qed-server"), *messages()])
"""All text for users, by its place."""


def idioms_in(text: str) -> list[str]:
    """Return the idioms in a text, each with some context and with an example of the idiom and its plain form."""
    flat = re.sub(r"\s+", " ", text)
    return [
        f"…{flat[max(found.start() - 40, 0) : found.end() + 40]}…: not {idiom.example!r}, but {idiom.plain!r}"
        for idiom in IDIOMS
        for found in re.finditer(idiom.pattern, flat)
    ]


@pytest.mark.parametrize("idiom", IDIOMS, ids=[idiom.pattern for idiom in IDIOMS])
def test_idiom_is_found_and_its_plain_form_has_none(idiom: Idiom) -> None:
    assert re.search(idiom.pattern, idiom.example)
    assert idioms_in(idiom.plain) == []


def test_strings_are_found_in_source() -> None:
    assert (
        python_strings_in('"""About."""\ndef f(x):\n    """Do."""\n    raise E(f"one {x} two" " three")')
        == "one ;  two three"
    )
    assert rust_strings_in('// "no"\n#[error("one: {0}")]\nlet x = "two\\"";\n#[cfg(test)]\n"no"') == 'one: {0}; two\\"'


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in NOT_YET])
def test_text_is_plain(name: str) -> None:
    assert idioms_in(TEXTS[name]) == []
