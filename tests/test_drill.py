"""`qed drill`: every attack is noticed; and each is not, once its guard is switched off."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from commands import QED, environment, one_line, qed, qed_on_terminal, read_lines
from harness.wait import LIMIT_S, wait_until
from qed.cli.drill import _show
from qed.cli.terminal import Terminal
from qed.drill.damage import copied
from qed.drill.drills import DRILLS, FOLDER_DRILLS, carried_out
from qed.drill.guards import Attack
from qed.drill.impostors import Impostors
from qed.drill.processes import Processes
from qed.drill.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qed.drill.scene import Witness

pytestmark = pytest.mark.timeout(600)

OFF: Final = """
import importlib.abc, importlib.machinery, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def execute_and_change(module):
            execute(module)
            exec({change!r}, module.__dict__)
        spec.loader.exec_module = execute_and_change
        return spec

sys.meta_path.insert(0, Finder())
"""
"""A `sitecustomize` that changes a module of the product right after its import, in every process of the drill."""

ACCEPTS: Final = """
def print_unconvincing(terminal, signed, error):
    terminal.records([{"Verify": "OK"}])
    raise SystemExit(0)
"""
ANSWERS: Final = """
def print_failure(terminal, *args, **kwargs):
    terminal.verdict("OK")
    raise SystemExit(0)
"""
PASSES: Final = """
def _audited(policy, source, receipts, settings, terminal, stack):
    terminal.records([{"Audit": "OK"}])
    raise SystemExit(0)
"""
COSIGNS: Final = """
Witness._outcome = lambda self, request: "\\u2014 w AAAA\\n"
"""
STARTS_EMPTY: Final = """
import tempfile
from dataclasses import replace
from pathlib import Path
_open = _open_replica
def _open_replica(settings):
    try:
        return _open(settings)
    except Exception:
        return _open(replace(settings, data_dir=Path(tempfile.mkdtemp(dir=settings.data_dir.parent))))
"""
CHECKS_NOTHING: Final = """
class Log:
    def __init__(self, folder): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def __len__(self): return 0
    def check(self, progress): pass
"""
ANY_MEMORY: Final = """
_open = open_memory
def open_memory(path, *, may_create):
    try:
        return _open(path, may_create=may_create)
    except SettingsError:
        return _open(path.with_name("another"), may_create=True)
"""
ANY_KEY: Final = """
from qed.log_keys import new_log_keys
_read = read_signer
def read_signer(path, origin):
    try:
        return _read(path, origin)
    except SettingsError:
        return FileSigner(new_log_keys(origin))
"""
ANY_STATE: Final = """
StateFile.verified = lambda self, state, trust, now: None
class _Any(str):
    __ne__ = lambda self, other: False
_crc = lambda content: _Any("")
"""
UNRETIRED: Final = """
import json
def load(cls, path):
    with open(path, "rb") as file:
        content = file.read()
    if content.startswith(b"{"):
        trust = json.loads(content)
        keys = [f"log {each['Vkey']}" for each in trust.pop("Retired", [])]
        trust["Policy"] = "\\n".join([*keys, trust["Policy"]])
        content = json.dumps(trust).encode()
    return cls(content)
Policy.load = classmethod(load)
"""
NO_FORK: Final = "contradiction = lambda *args, **kwargs: None"
NO_REPLAY: Final = "replay = lambda *args, **kwargs: None"
NO_WITNESSES: Final = "async def nothing(self): pass\nGuard._ask_witnesses = nothing"
NO_COMPARISON: Final = "async def nothing(self): pass\nGuard._compare = nothing"
FORGETS: Final = "Memory.compare = Memory.remember = lambda *args, **kwargs: Recollection(Known.FIRST, None)"

SWITCHES: Final = {
    "folder-log": ("qed.cli.check", CHECKS_NOTHING),
    "folder-table": ("qed.cli.check", CHECKS_NOTHING),
    "folder-raft": ("qed.server.opening", STARTS_EMPTY),
    "folder-member": ("qed.server.opening", STARTS_EMPTY),
    "folder-checkpoint": ("qed.server.published", "_log = logging.getLogger('off'); _log.setLevel(100)"),
    "sign-memory": ("qed.server.sign_memory", ANY_MEMORY),
    "sign-memory-lost": ("qed.server.guard", NO_COMPARISON),
    "log-key": ("qed.server.file_signer", ANY_KEY),
    "backup": ("qed.backups", "BackupFolder.verify = lambda *args, **kwargs: None"),
    "receipts": ("qed.cli.levels", ACCEPTS),
    "client-memory": ("qed.memory", FORGETS),
    "published-tile": ("qed.cli.audit", PASSES),
    "published-entries": ("qed.cli.audit", PASSES),
    "published-checkpoint": ("qed.cli.audit", PASSES),
    "monitor-state": ("qed.monitoring.state", ANY_STATE),
    "monitor-state-lost": ("qed.monitoring.state", "StateFile.require_no_copy = lambda self: None"),
    "monitor-copy": ("qed.cli.audit", PASSES),
    "witness-database": ("qed.witness.store", "_require_whole = lambda *args: None"),
    "witness-database-lost": ("qed.witness.key_file", "claim_use = lambda *args: True"),
    "rollback": ("qed.server.guard", NO_COMPARISON),
    "rollback-memory": ("qed.server.guard", NO_WITNESSES),
    "rollback-high-water": ("qed.server.high_water", "read_high_water = lambda path: None"),
    "rollback-client": ("qed.cli.verdicts", ANSWERS),
    "rollback-monitor": ("qed.monitoring.rounds", "Round._note_stale = lambda self, newest: None"),
    "rewrite": ("qed.witness.witness", COSIGNS),
    "rewrite-monitor": ("qed.monitoring.rounds", NO_FORK),
    "rewrite-publisher": ("qed.monitoring.publisher", NO_FORK),
    "rewrite-auditor": ("qed.monitoring.receipts", "ReceiptCheck.receipt = lambda self, receipt: None"),
    "fork": ("qed.witness.witness", COSIGNS),
    "fork-monitor": ("qed.monitoring.rounds", NO_FORK),
    "fork-client": ("qed.cli.verdicts", ANSWERS),
    "two-faces-clients": ("qed.memory", FORGETS),
    "two-faces-monitor": ("qed.monitoring.rounds", NO_FORK),
    "withheld-tile": ("qed.cli.audit", PASSES),
    "withheld-entries": ("qed.cli.audit", PASSES),
    "withheld-growth": ("qed.monitoring.rounds", "Round._of_witnesses = lambda self, newest: iter(())"),
    "hidden-event": ("qed.monitoring.auditing", NO_REPLAY),
    "hidden-event-monitor": ("qed.monitoring.rounds", NO_REPLAY),
    "other-answers": ("qed.monitoring.cross_check", "CrossCheck.run = lambda self, samples: None"),
    "forged-key": ("qed.cli.levels", ACCEPTS),
    "forged-signature": ("qed.cli.levels", ACCEPTS),
    "forged-witnesses": ("qed.policy", "Policy._require = lambda *args: None"),
    "forged-event": ("qed.cli.levels", ACCEPTS),
    "forged-entry": ("qed.cli.levels", ACCEPTS),
    "forged-proof": ("qed.cli.levels", ACCEPTS),
    "old-absence": ("qed.memory", FORGETS),
    "old-absence-max-age": ("qed.policy", "_Claim.may_change = False"),
    "old-checkpoint": ("qed.monitoring.auditing", "standing = lambda *args: []"),
    "retired-key": ("qed.policy", UNRETIRED),
}
"""How the guard of each drill is switched off: which module is changed, and how."""

CRASH: Final = re.compile(r"ended with (70|-)|Traceback|a bug in qed")

SOME: Final = (
    "folder-raft",
    "rollback",
    "rewrite",
    "fork-monitor",
    "two-faces-clients",
    "hidden-event",
    "forged-witnesses",
    "retired-key",
)
"""One drill for each part of the product. `QED_DRILL=all` switches off the guards of all."""
OFF_NAMES: Final = tuple(SWITCHES) if os.environ.get("QED_DRILL") == "all" else SOME


def switched_off(name: str, folder: Path) -> dict[str, str]:
    """Return the environment in which the guard of a drill is switched off."""
    module, change = SWITCHES[name]
    (folder / "sitecustomize.py").write_text(OFF.format(module=module, change=change))
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("drill")
    (folder / "scene").mkdir()
    with Processes(folder) as run:
        scene = Scene(run, folder / "scene")
        scene.build()
        yield scene


@pytest.fixture(scope="module")
def impostors(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Impostors:
    return Impostors(scene, tmp_path_factory.mktemp("impostors"))


def test_every_attack_is_noticed(scene: Scene, impostors: Impostors, capsys: pytest.CaptureFixture[str]) -> None:
    began_s = time.monotonic()
    outcomes = list(carried_out(scene.run, DRILLS, lambda folder: Attack(scene, impostors, folder)))
    assert [(each.name, each.text) for each in outcomes if not each.is_noticed] == []
    assert [each.name for each in outcomes] == [each.name for each in DRILLS] == list(SWITCHES)
    assert all(0 <= each.after_s <= time.monotonic() - began_s for each in outcomes)
    kept = {each.name: each.evidence for each in outcomes if each.evidence is not None}
    assert {"rewrite", "rewrite-monitor", "fork-monitor", "two-faces-clients", "hidden-event"} <= set(kept)
    assert all(path.is_file() for path in kept.values())
    _show(Terminal(is_json=False, has_color=False), outcomes, 1.0, None)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == f"{len(DRILLS)} attacks, all noticed, in 1 s."
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize("name", OFF_NAMES)
def test_an_attack_is_not_noticed_if_its_guard_is_switched_off(
    name: str, scene: Scene, impostors: Impostors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [drill] = [each for each in DRILLS if each.name == name]
    (tmp_path / "attack").mkdir()
    if name == "rollback":
        # Here the guard is in the impostor.
        (tmp_path / "impostors").mkdir()
        impostors = Impostors(scene, tmp_path / "impostors")
    elif name.startswith(("fork", "two-faces", "retired")):
        assert impostors.forked.url
    monkeypatch.setattr(scene.run, "environment", switched_off(name, tmp_path))
    if drill.guard == "a witness":
        monkeypatch.setattr(scene, "witnesses", [again(scene, tmp_path)])
    outcome = drill.run(Attack(scene, impostors, tmp_path / "attack"))
    assert not outcome.is_noticed, outcome
    # The guard was off, and nothing else went wrong.
    assert CRASH.search(outcome.text) is None, outcome


def again(scene: Scene, folder: Path) -> Witness:
    """Return a witness that goes on from the database of the first one."""
    first = scene.witnesses[0]
    database = copied(first.database, folder)
    options = ("--database", database, "--vkey", scene.keys[0].vkey, "--listen", "127.0.0.1:0")
    server = scene.run.listening("qed", "witness", "run", "--key", first.key, *options)
    return replace(first, database=database, server=server)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_copies_of_a_data_folder_are_attacked(scene: Scene, tmp_path: Path) -> None:
    before, names = contents(scene.old_data), [each.name for each in FOLDER_DRILLS]
    command = ("drill", "--data-dir", str(scene.old_data))
    done = qed("--json", *command, "--keep", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert [(each["Drill"], each["Noticed"]) for each in read_lines(done.stdout)] == [(name, True) for name in names]
    assert sorted(path.name for path in (tmp_path / "kept" / "attacks").iterdir()) == sorted(names)
    off = switched_off("folder-log", tmp_path)["PYTHONPATH"]
    done = qed(*command, "--only", "folder-log", PYTHONPATH=off)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 of 1 attack NOT NOTICED")
    assert "folder-log was not noticed by qed check: `qed check` ended with 0: Check: OK" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "was not noticed" not in line)
    assert contents(scene.old_data) == before


def test_a_terminal_shows_how_far_it_is(scene: Scene) -> None:
    code, screen = qed_on_terminal("drill", "--data-dir", str(scene.old_data), "--only", "folder-log")
    assert code == 0
    assert "setting up" in screen
    assert "1 attack, all noticed" in screen


def test_a_data_folder_that_cannot_be_attacked_is_refused(scene: Scene, tmp_path: Path) -> None:
    for folder, message in ((scene.data, "a server uses"), (tmp_path, "expected the data folder of a server")):
        done = qed("drill", "--data-dir", str(folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    damaged = copied(scene.old_data, tmp_path)
    (damaged / "FORMAT").write_text("something else\n")
    done = qed("drill", "--data-dir", str(damaged))
    assert (done.returncode, done.stdout) == (2, "")
    assert "the drill cannot begin: expected `qed check` to end with 0, found 1" in done.stderr


def test_wrong_usage(tmp_path: Path) -> None:
    done = qed("drill", "--only", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--list" in one_line(done.stderr)
    done = qed("drill", "--keep", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "File exists" in one_line(done.stderr)


def test_a_list_of_all_drills_has_their_guards() -> None:
    listed = read_lines(qed("--json", "drill", "--list").stdout)
    assert [(each["Drill"], each["Guard"]) for each in listed] == [(each.name, each.guard) for each in DRILLS]
    done = qed("drill", "--list")
    assert "Have a log cosigned" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_drill_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = [QED, "drill", "--only", "forged-proof"]
    shown = environment(TMPDIR=str(tmp_path))
    drill = subprocess.Popen(command, env=shown, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(inside(tmp_path)) > 1, "a witness and another process")
    drill.send_signal(number)
    stdout, stderr = drill.communicate(timeout=LIMIT_S)
    assert (drill.returncode, stdout) == (128 + number, "")
    assert one_line(stderr) in {"interrupted", "terminated"}
    assert inside(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def inside(folder: Path) -> list[Path]:
    """Return the processes whose working folder is below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(process)
    return found
