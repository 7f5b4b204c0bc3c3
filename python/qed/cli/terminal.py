"""The output of the commands: answers on stdout, everything else on stderr. The only file that prints.

Plain lines need only `sys.stdout`. Trees, tables and progress bars need rich, whose import takes longer than most
commands, so it is imported only where it draws something.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO, TypeAlias

import msgspec

from qed._printable import beginning, ending, printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table

    Fields: TypeAlias = Iterable[tuple[str, object]]
    Draw: TypeAlias = Callable[[str, Fields, Sequence[str], Iterable[Sequence["Cell"]]], None]

Cell: TypeAlias = "str | tuple[str, ...]"
"""The content of a table cell: one line, or several."""

__all__ = [
    "Cell",
    "Terminal",
    "close_streams",
    "configure_logging",
    "open_streams",
    "print_error",
    "show_warnings",
    "totals",
]

_WIDTH: Final = 80
_WORD_CHARACTERS: Final = 24
"""The longest word that a table keeps whole on a narrow terminal: an address with its port."""
_LINE_S: Final = 1.0
"""The least time between two lines of progress."""
# Longer than any message of ours; a longer one quotes an argument or a server at length.
_ERROR_CHARACTERS: Final = 800


def open_streams() -> None:
    """Make stdout and stderr safe to print to: neither is None, and characters they cannot encode are escaped."""
    # A stream that the parent closed (`>&-`) is None in Python: discard output to it, as the parent wants.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - lives as long as the process
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def close_streams() -> None:
    """Redirect stdout and stderr to /dev/null, so that the flush at exit cannot fail on a closed pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def print_error(message: str) -> None:
    """Print one line on stderr: `qed: ` and the message.

    Args:
        message: The error; line breaks in it are escaped, and the middle of a very long one is omitted.
    """
    text = printable(message)
    if len(text) > _ERROR_CHARACTERS:
        half = _ERROR_CHARACTERS // 2
        text = f"{beginning(text, half)} .. {ending(text, half)}"
    print(f"qed: {text}", file=sys.stderr, flush=True)  # noqa: T201 - this file prints


def show_warnings() -> None:
    """Print each warning of the library as one line on stderr, without the place in its source."""
    warnings.showwarning = lambda message, *_, **__: print_error(f"warning: {message}")


def configure_logging(level: str) -> None:
    """Send log records of `level` and above to stderr.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )


class Terminal:
    """Prints one command's answer: as labelled lines for people, or as one JSON value per line for programs.

    Args:
        is_json: Whether programs read stdout. If so, output for people is omitted.
        has_color: Whether to use colours on a terminal, unless NO_COLOR is set.
    """

    def __init__(self, *, is_json: bool, has_color: bool) -> None:
        self.is_json = is_json
        self._has_color = has_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def line(self, text: str = "") -> None:
        """Print one line for people.

        Args:
            text: The line; unprintable characters are escaped.
        """
        if not self.is_json:
            print(printable(text), flush=True)  # noqa: T201 - this file prints

    def lines(self, texts: Iterable[str]) -> None:
        """Print lines and an empty one, for people. No line is wrapped or cut.

        Args:
            texts: The lines; unprintable characters are escaped.
        """
        if not self.is_json:
            print("\n".join([*map(printable, texts), ""]), flush=True)  # noqa: T201 - this file prints

    def fields(self, title: str, values: Iterable[tuple[str, object]]) -> None:
        """Print a title, a line ` Label: value` per field and an empty line, for people. No line is wrapped or cut.

        Args:
            title: The line above the fields.
            values: Labels with their values; booleans are printed as `true` and `false`.
        """
        if self.is_json:
            return
        lines = [printable(title), ""]
        for label, value in values:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            lines.append(f" {self._style(f'{label}:', '1')} {printable(text)}")
        print("\n".join([*lines, ""]), flush=True)  # noqa: T201 - this file prints

    def verdict(self, word: str, found: str = "") -> None:
        """Print `Verify: ` and a word, for people.

        Args:
            word: `OK`, `KO`, `STALE`, `FORK` or `INCONCLUSIVE`.
            found: What was verified, to be printed behind the word.
        """
        if not self.is_json:
            styled = self._style(word, {"OK": "1;32", "INCONCLUSIVE": "1;33"}.get(word, "1;31"))
            print(f"Verify: {styled}{found and f', {found}'}", flush=True)  # noqa: T201 - this file prints

    def conclusion(self, text: str) -> None:
        """Print the result of a check that verifies nothing, for people.

        Args:
            text: The result, and why it proves nothing.
        """
        if not self.is_json:
            print(self._style(text, "1;33"), flush=True)  # noqa: T201 - this file prints

    def records(self, values: Iterable[bytes | Mapping[str, object]]) -> None:
        """Print one JSON value per line, for programs.

        Args:
            values: Objects, or JSON text. Unprintable characters in their strings are escaped.
        """
        if not self.is_json:
            return
        for value in values:
            text = value if isinstance(value, bytes) else msgspec.json.encode(value)
            sys.stdout.write(printable_json(text.decode()) + "\n")
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """Print text of several lines unchanged, for people and programs alike.

        Args:
            text: This program's own text, such as a completion script.
        """
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print one line on stderr that a reader of the answer should know.

        Args:
            text: The line, without the leading `qed: `.
        """
        print_error(text)

    def tree(self, title: str, branches: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Draw a tree of two levels, for people.

        Args:
            title: The root of the tree.
            branches: Each branch's own line, and the lines below it.
        """
        if self.is_json:
            return
        from rich.text import Text  # noqa: PLC0415 - see the module's docstring
        from rich.tree import Tree  # noqa: PLC0415 - see the module's docstring

        root = Tree(Text(printable(title), style="bold"))
        for branch, leaves in branches:
            node = root.add(Text(printable(branch)))
            for leaf in leaves:
                node.add(Text(printable(leaf)))
        self._draw(root)
        self.line()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Draw a table, for people.

        Args:
            columns: The headings.
            rows: One cell per heading. A cell that is too wide is folded, never cut; its words stay whole, so that ids
                and addresses can be copied, unless they are very long.
        """
        if not self.is_json:
            self._draw(_table(columns, rows, self._console(sys.stdout).width))

    @contextmanager
    def screen(self) -> Iterator[Draw]:
        """Give a function that draws fields above a table, for people. Each drawing replaces the last.

        Yields:
            A function of a title, labels with their values, headings and rows. If stdout is not a terminal, each
            drawing is printed below the last.
        """
        if self.is_json or not sys.stdout.isatty():

            def draw_below(title: str, values: Fields, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
                self.fields(title, values)
                self.table(columns, rows)

            yield draw_below
            return
        from rich.console import Group  # noqa: PLC0415 - see the module's docstring
        from rich.live import Live  # noqa: PLC0415 - see the module's docstring
        from rich.text import Text  # noqa: PLC0415 - see the module's docstring

        # Redirect stderr only if it shares the terminal: a file or a pipe must still get its own output.
        is_shared = sys.stderr.isatty()
        with Live(console=self._console(sys.stdout), auto_refresh=False, redirect_stderr=is_shared) as live:

            def draw(title: str, values: Fields, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
                labels = "".join(f" {label}: {printable(str(value))}\n" for label, value in values)
                table = _table(columns, rows, live.console.width)
                live.update(Group(Text(f"{title}\n\n{labels}"), table), refresh=True)

            yield draw

    def can_ask(self) -> bool:
        """Return whether stdin is a terminal, where a person can answer a question."""
        return sys.stdin is not None and sys.stdin.isatty()

    def ask(self, question: str) -> str | None:
        """Print a question on stderr and return the answer, one line.

        Args:
            question: The question.

        Returns:
            The answer without surrounding blanks, or None at the end of the input.
        """
        sys.stderr.write(printable(question))
        sys.stderr.flush()
        # Read as bytes: the input may not be valid text.
        answer = sys.stdin.buffer.readline()
        return answer.decode(errors="replace").strip() if answer else None

    @contextmanager
    def progress(self, total: int | None, *, is_logged: bool = False) -> Iterator[Callable[[int, int], None]]:
        """Show a bar, the number of events, their rate and the time left on stderr, while the block runs.

        Args:
            total: How many bytes there are to read, or how many events if no bytes are read; None if unknown, and then
                the time left is not shown.
            is_logged: Whether to print a line at times if stderr is not a terminal.

        Yields:
            A function of the numbers of events and bytes that were finished since the last call.
        """
        if not sys.stderr.isatty():
            yield _logged(total) if is_logged and total else lambda _events, _bytes: None
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - see above

        columns = (
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%" if total else ""),
            TextColumn("{task.fields[events]:,} events, {task.fields[rate]:,.0f}/s, left:"),
            TimeRemainingColumn(),
        )
        start_s = time.monotonic()
        events = 0
        # As in `screen`: redirect stdout only if it shares the terminal.
        console, is_shared = self._console(sys.stderr), sys.stdout.isatty()
        with Progress(*columns, console=console, transient=True, redirect_stdout=is_shared) as bar:
            task = bar.add_task("", total=total, events=0, rate=0.0)

            def advance(added: int, size_bytes: int) -> None:
                nonlocal events
                events += added
                rate = events / max(time.monotonic() - start_s, 1e-9)
                bar.update(task, advance=size_bytes, events=events, rate=rate)

            yield advance

    @contextmanager
    def reading(self, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a bar, the number of bytes read, their rate and the time left on stderr, while the block runs.

        Args:
            total: How many bytes there are to read; None if unknown.

        Yields:
            A function of the number of bytes that were read since the last call. It does nothing if stderr is not a
            terminal.
        """
        if not sys.stderr.isatty():
            yield lambda _bytes: None
            return
        from rich import progress  # noqa: PLC0415 - see the module's docstring

        columns = (
            progress.BarColumn(bar_width=20),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        # As in `screen`: redirect stdout only if it shares the terminal.
        console, is_shared = self._console(sys.stderr), sys.stdout.isatty()
        with progress.Progress(*columns, console=console, transient=True, redirect_stdout=is_shared) as bar:
            task = bar.add_task("", total=total)
            yield lambda size_bytes: bar.update(task, advance=size_bytes)

    @contextmanager
    def activity(self) -> Iterator[Callable[[str], None]]:
        """Show on stderr what is being done, while the block runs.

        Yields:
            A function of one line for people, which replaces the one before. It does nothing if stderr is not a
            terminal.
        """
        if not sys.stderr.isatty():
            yield lambda _text: None
            return
        from rich.status import Status  # noqa: PLC0415 - see the module's docstring

        with Status("", console=self._console(sys.stderr)) as status:
            yield lambda text: status.update(printable(text))

    def _style(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._has_color and sys.stdout.isatty() else text

    def _draw(self, drawing: RenderableType) -> None:
        console = self._console(sys.stdout)
        # What cannot be folded would be cut at the edge of a narrow terminal, which itself folds what is too wide.
        width = max(console.width, console.measure(drawing).minimum)
        console.print(drawing, width=width, crop=False)
        sys.stdout.flush()

    def _console(self, stream: TextIO) -> Console:
        from rich.console import Console  # noqa: PLC0415 - see the module's docstring

        # The reader's width is unknown outside a terminal; the output is designed for 80 columns.
        width = None if stream.isatty() else _WIDTH
        return Console(file=stream, width=width, no_color=not self._has_color, highlight=False, markup=False)


def _logged(total: int) -> Callable[[int, int], None]:
    """Return what prints a line for each tenth of `total` that is done, but not more often than once a second."""
    done = last_tenth = 0
    last_s = time.monotonic()

    def advance(events: int, _bytes: int) -> None:
        nonlocal done, last_tenth, last_s
        done += events
        tenth, now_s = 10 * done // total, time.monotonic()
        # The answer follows the last one at once.
        if last_tenth < tenth < 10 and now_s - last_s >= _LINE_S:  # noqa: PLR2004  # ten tenths are all
            last_tenth, last_s = tenth, now_s
            print_error(f"{done} of {total} events")

    return advance


def totals(advance: Callable[[int, int], None]) -> Callable[[int], None]:
    """Return a function of the number of events that are done, for a bar without bytes.

    Args:
        advance: What `Terminal.progress` gives.

    Returns:
        The function.
    """
    done = 0

    def report(events: int) -> None:
        nonlocal done
        advance(events - done, events - done)
        done = events

    return report


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], width: int) -> Table:
    from rich import box  # noqa: PLC0415 - see the module's docstring
    from rich.table import Table  # noqa: PLC0415 - see the module's docstring
    from rich.text import Text  # noqa: PLC0415 - see the module's docstring

    texts = [["\n".join(map(printable, (cell,) if isinstance(cell, str) else cell)) for cell in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1) if width >= _WIDTH else (0, 1, 0, 0))
    for number, column in enumerate(columns):
        words = [word for row in texts for word in row[number].split()]
        longest = max(map(len, [column, *words]))
        table.add_column(column, overflow="fold", min_width=min(longest, _WORD_CHARACTERS))
    for row in texts:
        table.add_row(*map(Text, row))
    return table
