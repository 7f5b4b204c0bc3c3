"""Starting a witness: its keys, its database and its logs must fit together, and it must not forget."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sqlite3
import ssl
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from certificates import Operator
from commands import environment, qed
from harness.wait import LIMIT_S, wait_until
from qed.errors import WitnessError
from qed.log_keys import new_witness_keys
from qed.server.addresses import Address
from qed.witness.known_logs import KnownLog, KnownLogs, logs_in
from qed.witness.settings import Settings
from qed.witness.store import State, Store
from witnesses import ForeignLog, WitnessProcess, request, root_of, vkey_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME: Final = "witness.example.com/w1"


@pytest.fixture
def log() -> ForeignLog:
    log = ForeignLog("log.example.com/payments")
    log.grow(10)
    return log


@pytest.fixture
def witness(tmp_path: Path, log: ForeignLog) -> Iterator[WitnessProcess]:
    """Give a witness with keys and a log, that was never started."""
    process = WitnessProcess(tmp_path)
    process.make_key()
    process.know(log)
    yield process
    process.forget()


def state_of(size: int, time: int) -> State:
    """Return what a witness has cosigned of a log, with a note that has no signatures."""
    return State("log", size, bytes(32), f"log\n{size}\n{base64.b64encode(bytes(32)).decode()}\n", time)


def test_a_key_file_of_a_witness_has_two_keys_and_is_private(witness: WitnessProcess) -> None:
    assert stat.S_IMODE(witness.key.stat().st_mode) == 0o600
    done = qed("--json", "log-key", "show", str(witness.key))
    record = json.loads(done.stdout)
    assert record["Witness"] == NAME
    assert [vkey.split("+", 2)[2][0] for vkey in record["Vkeys"]] == ["B", "B"]
    kinds = [key.kind for key in new_witness_keys(NAME)]
    assert kinds == [4, 6]


@pytest.mark.parametrize("args", [(), ("--origin", "a", "--witness", "b")])
def test_a_key_is_for_a_log_or_for_a_witness(args: tuple[str, ...], tmp_path: Path) -> None:
    done = qed("log-key", "generate", *args, "--out", str(tmp_path / "key"))
    assert done.returncode == 2
    assert "--origin ORIGIN for a log, or --witness NAME for a witness" in done.stderr


def test_a_witness_says_where_it_listens_and_ends_with_ctrl_c(witness: WitnessProcess) -> None:
    witness.start("--new-database")
    assert witness.stdout == f"Witness {NAME} listens on {witness.url} for 1 log\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        assert witness.stop(number) == 0
        assert "Traceback" not in witness.stderr
        witness.start()
    for path in witness.folder.glob("witness.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_json_has_the_public_keys(witness: WitnessProcess) -> None:
    command = [*witness.command("--new-database"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
    assert process.stdout is not None
    record = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    shown = qed("log-key", "show", str(witness.key)).stdout.splitlines()
    assert (record["Witness"], record["Logs"], record["Vkeys"], process.returncode) == (NAME, 1, shown, 0)
    assert record["Url"].startswith("http://127.0.0.1:")


def test_without_its_database_a_witness_does_not_start(witness: WitnessProcess) -> None:
    assert "--new-database" in witness.refused()
    assert not witness.database.exists()
    witness.start("--new-database")
    witness.stop()
    witness.key.with_name("witness.key.used").unlink()
    assert "run without --new-database" in witness.refused("--new-database")
    witness.start()
    witness.stop()
    for path in witness.folder.glob("witness.db*"):
        path.unlink()
    assert "found none" in witness.refused()
    # The key has signed, as the note beside it says.
    assert "have signed" in witness.refused("--new-database")
    assert not witness.database.exists()


def test_a_start_that_failed_leaves_a_key_unused(witness: WitnessProcess) -> None:
    witness.logs.write_text("nonsense")
    assert "logs.toml" in witness.refused("--new-database")
    assert sorted(path.name for path in witness.folder.iterdir()) == ["logs.toml", "witness.key"]


def test_the_note_of_use_names_the_database_and_stays(witness: WitnessProcess) -> None:
    note = witness.key.with_name("witness.key.used")
    witness.start("--new-database")
    before = note.read_text()
    assert before.endswith(f"{witness.database}\n")
    witness.stop()
    witness.start()
    assert note.read_text() == before
    note.unlink()
    witness.stop()
    # A database from before the note was lost: it is written again.
    witness.start()
    assert note.read_text() == before


def test_a_link_to_a_key_leads_to_its_note_of_use(witness: WitnessProcess) -> None:
    witness.start("--new-database")
    witness.stop()
    elsewhere = witness.folder / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / "witness.key"
    link.symlink_to("../witness.key")
    database = str(elsewhere / "witness.db")
    assert "have signed" in witness.refused("--key", str(link), "--database", database, "--new-database")
    assert [path.name for path in elsewhere.iterdir()] == ["witness.key"]


def test_of_several_first_starts_with_one_key_one_succeeds(witness: WitnessProcess) -> None:
    for turn in range(15):
        folder = witness.folder / str(turn)
        folder.mkdir()
        key = Path(shutil.copy(witness.key, folder / "witness.key"))
        barrier = threading.Barrier(4)

        def begin(number: int, key: Path = key, folder: Path = folder, barrier: threading.Barrier = barrier) -> bool:
            settings = Settings(
                key=key,
                database=folder / f"{number}.db",
                log_files=(witness.logs,),
                vkeys=(),
                listen=Address("127.0.0.1", 0),
                is_new=True,
            )
            barrier.wait(LIMIT_S)
            try:
                settings.open()[1].close()
            except WitnessError as exc:
                assert "have signed" in str(exc)  # noqa: PT017  # in threads
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(begin, range(4))).count(True) == 1
        assert len(list(folder.glob("*.db"))) == 1


def test_a_note_of_use_that_cannot_be_written_is_logged(witness: WitnessProcess) -> None:
    witness.start("--new-database")
    assert "cannot note" not in witness.stderr
    witness.stop()
    # With the end of its note, this name is too long for a file.
    long = witness.folder / ("k" * 251)
    witness.key.rename(long)
    witness.start("--key", str(long))
    assert "cannot note that the key is used" in witness.stderr


def test_the_database_of_another_key_is_refused(witness: WitnessProcess) -> None:
    witness.start("--new-database")
    witness.stop()
    witness.key.unlink()
    witness.make_key()
    assert "is that of other keys" in witness.refused()
    assert "is that of other keys" in witness.refused("--add-keys")


def test_a_further_key_signs_only_if_asked_for(witness: WitnessProcess, log: ForeignLog) -> None:
    both = witness.key.read_text()
    witness.key.write_text(both.splitlines()[0] + "\n")
    witness.start("--new-database")
    assert len(witness.post(log.request(0, 3)).text.splitlines()) == 1
    witness.stop()
    witness.key.write_text(both)
    assert "--add-keys" in witness.refused()
    witness.start("--add-keys")
    assert len(witness.post(log.request(3, 5)).text.splitlines()) == 2
    witness.stop()
    witness.start()


def test_a_clock_behind_its_last_cosignature_stops_a_witness(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    first = witness.post(log.request(0, 3)).text
    witness.stop()
    # As if it had signed an hour from here.
    with sqlite3.connect(witness.database) as database:
        database.execute("UPDATE logs SET time = time + 3600")
    database.close()
    witness.start()
    for old, size in ((3, 3), (3, 10)):
        answer = witness.post(log.request(old, size))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert witness.last(log.origin).text == log.sign(log.text(3)) + first
    witness.stop()
    with sqlite3.connect(witness.database) as database:
        database.execute("UPDATE logs SET time = time - 3600")
    database.close()
    witness.start()
    assert witness.post(log.request(3)).status_code == 200


def test_what_is_not_a_database_of_a_witness_is_refused(witness: WitnessProcess) -> None:
    witness.start("--new-database")
    witness.stop()
    good = witness.database.read_bytes()
    for number, statement in enumerate(("PRAGMA application_id = 1", "PRAGMA user_version = 2", "DROP TABLE keys")):
        with sqlite3.connect(witness.database) as database:
            database.execute(statement)
        database.close()
        assert ("another one", "update qed", "no such table")[number] in witness.refused()
        witness.database.write_bytes(good)
    for bad in (b"", b"not a database" * 100, good[:5000]):
        witness.database.write_bytes(bad)
        assert str(witness.database) in witness.refused()


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_keys_that_others_can_read_are_refused(mode: int, witness: WitnessProcess) -> None:
    witness.key.chmod(mode)
    assert f"{mode:04o}" in witness.refused("--new-database")


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_a_database_that_others_can_change_or_read_is_refused(mode: int, witness: WitnessProcess) -> None:
    witness.start("--new-database")
    witness.stop()
    witness.database.chmod(mode)
    assert f"{mode:04o}" in witness.refused()
    witness.database.chmod(0o640)
    witness.start()


def test_keys_of_a_log_are_refused(witness: WitnessProcess) -> None:
    witness.key.unlink()
    qed("log-key", "generate", "--origin", "log.example.com/x", "--out", str(witness.key))
    assert "kind 04 and 06" in witness.refused("--new-database")


def test_a_log_with_the_name_of_the_witness_is_refused(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.know(log, ForeignLog(NAME))
    assert "other names than the witness" in witness.refused("--new-database")
    key = KnownLog.of([ForeignLog(NAME).vkey], origin="log.example.com/other")
    with pytest.raises(WitnessError, match="other names than the witness"):
        KnownLogs([key], witness=NAME)


def test_options_that_do_not_fit_are_refused(witness: WitnessProcess, log: ForeignLog) -> None:
    assert "slash" in witness.refused("--new-database", "--submission-prefix", "/a/")
    assert "found both" in witness.refused("--new-database", "--add-keys")
    assert "--tls-key together" in witness.refused("--new-database", "--tls-cert", str(witness.key))
    assert "HOST:PORT" in witness.refused("--listen", "x")
    assert "each log once" in witness.refused("--new-database", "--vkey", ForeignLog(log.origin).vkey)
    assert "name+id+base64" in witness.refused("--new-database", "--vkey", "nonsense")
    witness.key.write_text(witness.key.read_text().splitlines()[1] + "\n")
    assert "kind 04 with --allow-extensions" in witness.refused("--new-database", "--allow-extensions")
    witness.logs.unlink()
    assert "expected --logs FILE or --vkey VKEY" in witness.refused("--new-database")


def test_two_witnesses_do_not_listen_on_one_port(witness: WitnessProcess) -> None:
    witness.start("--new-database")
    address = witness.url.removeprefix("http://")
    assert f"cannot listen on {address}" in witness.refused("--listen", address)


def test_prefixes_are_in_front_of_the_paths(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database", "--submission-prefix", "/s/x", "--monitoring-prefix", "/m")
    assert witness.post(log.request(0)).status_code == 404
    assert httpx.post(f"{witness.url}/s/x/add-checkpoint", content=log.request(0)).status_code == 200
    assert witness.last(log.origin).status_code == 404
    witness.url += "/m"
    assert witness.last(log.origin).status_code == 200


def test_https_is_served_and_a_hangup_reads_the_certificate_again(
    witness: WitnessProcess, log: ForeignLog, tmp_path: Path
) -> None:
    operator = Operator(tmp_path / "authority")
    files = operator.issue("localhost")
    witness.start("--new-database", "--tls-cert", str(files.certificate), "--tls-key", str(files.key))
    assert witness.url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=operator.path)
    with httpx.Client(base_url=witness.url, verify=context, timeout=LIMIT_S) as client:
        assert witness.post(log.request(0, 3), client).status_code == 200
    operator.issue("localhost")
    witness.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "files read again" in witness.stderr, "the log line")
    with httpx.Client(base_url=witness.url, verify=context, timeout=LIMIT_S) as client:
        assert witness.post(log.request(3), client).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(witness.url)
    files.key.chmod(0o644)
    witness.stop()
    assert "chmod 600" in witness.refused("--tls-cert", str(files.certificate), "--tls-key", str(files.key))


def test_extension_lines_are_cosigned_if_they_are_allowed(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database", "--allow-extensions")
    note = log.sign(log.text() + "more\n")
    lines = witness.post(request(0, [], note)).text
    assert len(lines.splitlines()) == 1
    assert witness.last(log.origin).text == note + lines
    assert len(witness.post(log.request(10)).text.splitlines()) == 2


def test_a_hangup_reads_the_logs_again(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    other = ForeignLog("log.example.com/other")
    other.grow(3)
    assert witness.post(other.request(0)).status_code == 404
    witness.know(other)
    witness.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "files read again logs=1" in witness.stderr, "the log line")
    assert witness.post(other.request(0)).status_code == 200
    assert witness.post(log.request(0)).status_code == 404
    witness.logs.write_text("[[log]]\nvkeys = 1\n")
    witness.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "files not read again" in witness.stderr, "the log line")
    assert witness.post(other.request(3)).status_code == 200


def test_a_log_above_its_rate_waits_and_its_old_checkpoints_do_not_count(
    witness: WitnessProcess, log: ForeignLog
) -> None:
    log.grow(30)
    witness.know(log, per_day=24)
    witness.start("--new-database")
    with httpx.Client(base_url=witness.url, timeout=LIMIT_S) as client:
        assert witness.post(log.request(0, 1), client).status_code == 200
        for _ in range(15):
            witness.post(log.request(1, 1), client)
            assert witness.post(log.request(5, 6), client).status_code == 409
        for size in range(1, 10):
            assert witness.post(log.request(size, size + 1), client).status_code == 200
        answer = witness.post(log.request(10, 11), client)
        assert answer.status_code == 429
        assert 3000 < int(answer.headers["retry-after"]) <= 3600
        assert witness.post(log.request(10, 10), client).status_code == 429
        # A fork of this size is kept nevertheless.
        fork = log.sign(log.text(10, bytes(32)))
        assert witness.post(request(10, [], fork), client).status_code == 429
    assert fork in qed("witness", "evidence", "--database", str(witness.database)).stdout


def test_a_database_that_fails_ends_the_witness(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    assert witness.post(log.request(0, 3)).status_code == 200
    with sqlite3.connect(witness.database) as database:
        database.execute("DROP TABLE logs")
    database.close()
    assert witness.post(log.request(3)).status_code == 503
    assert witness.process.wait(LIMIT_S) == 2
    assert "has failed" in witness.stderr.splitlines()[-1]


def test_nothing_is_answered_before_it_is_in_the_database_itself(tmp_path: Path) -> None:
    path = tmp_path / "witness.db"
    store = Store.create(path, new_witness_keys(NAME))
    with store.transaction():
        store.put(state_of(1, 5))
    store._connection.execute("PRAGMA busy_timeout = 100")
    with sqlite3.connect(path, isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM logs").fetchall()

        def put() -> None:
            with store.transaction():
                store.put(state_of(2, 6))

        with pytest.raises(sqlite3.OperationalError, match="reads the database") as caught:
            put()
        assert caught.value.sqlite_errorcode == sqlite3.SQLITE_BUSY
        reader.execute("COMMIT")
    reader.close()
    with store.transaction():
        assert store.last("log") == state_of(2, 6)
        store.put(state_of(3, 7))
    alone = tmp_path / "alone.db"
    shutil.copy(path, alone)
    assert [state.size for state in Store.open(alone).states()] == [3]
    store.close()


def test_what_was_signed_is_in_the_database_itself(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    for size in range(1, 10):
        assert witness.post(log.request(size - 1, size)).status_code == 200
    witness.kill()
    for path in witness.folder.glob("witness.db-*"):
        path.unlink()
    witness.start()
    assert witness.last(log.origin).text.splitlines()[1] == "9"
    assert witness.post(log.request(0, 3)).text == "9\n"


def _delete(database: Path) -> None:
    database.unlink()


def _replace(database: Path) -> None:
    copy = database.with_name("copy")
    shutil.copy(database, copy)
    copy.replace(database)


def _execute(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_delete, "is missing"),
        (_replace, "replaced"),
        (lambda database: os.truncate(database, 0), "cut off"),
        (lambda database: _execute(database, "DELETE FROM logs"), "has lost"),
        (lambda database: _execute(database, "UPDATE logs SET size = 2, time = time + 1"), "has lost"),
        (lambda database: _execute(database, "UPDATE logs SET root = zeroblob(32)"), "has lost"),
        (lambda database: _execute(database, "UPDATE logs SET time = time - 1"), "has lost"),
    ],
)
def test_a_database_that_others_take_away_ends_the_witness(
    change: Callable[[Path], None], reason: str, witness: WitnessProcess, log: ForeignLog
) -> None:
    witness.start("--new-database")
    assert witness.post(log.request(0, 3)).status_code == 200
    change(witness.database)
    assert witness.post(log.request(3)).status_code == 503
    assert witness.process.wait(LIMIT_S) == 2
    assert reason in witness.stderr.splitlines()[-1]


def test_monitors_get_no_note_from_a_database_that_has_lost_it(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    assert witness.post(log.request(0, 3)).status_code == 200
    _execute(witness.database, "DELETE FROM logs")
    assert witness.last(log.origin).status_code == 503
    assert witness.process.wait(LIMIT_S) == 2


def test_a_locked_database_is_busy_and_nothing_is_lost(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    database = sqlite3.connect(witness.database, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    answer = witness.post(log.request(0))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    database.execute("ROLLBACK")
    database.close()
    assert witness.post(log.request(0)).status_code == 200


def test_a_restored_database_makes_conflicts_that_heal(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    assert witness.post(log.request(0, 3)).status_code == 200
    witness.stop()
    copy = witness.folder / "copy.db"
    shutil.copy(witness.database, copy)
    witness.start()
    assert witness.post(log.request(3, 8)).status_code == 200
    witness.stop()
    os.replace(copy, witness.database)  # noqa: PTH105  # as an operator does
    witness.start()
    answer = witness.post(log.request(8))
    assert (answer.status_code, answer.text) == (409, "3\n")
    assert witness.post(log.request(3)).status_code == 200


def test_a_flipped_bit_in_what_was_cosigned_is_noticed_at_the_start(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    assert witness.post(log.request(0)).status_code == 200
    witness.stop()
    good = witness.database.read_bytes()
    root = root_of(log.leaves)
    for content in (root, f"\n{len(log.leaves)}\n{base64.b64encode(root).decode()}\n".encode()):
        at = good.index(content) + 1
        witness.database.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert "is damaged: expected a note of" in witness.refused()
    witness.database.write_bytes(good)
    witness.start()


def test_status_and_evidence_are_shown_while_it_runs(witness: WitnessProcess, log: ForeignLog) -> None:
    witness.start("--new-database")
    assert qed("witness", "evidence", "--database", str(witness.database)).stdout.startswith("No evidence")
    assert witness.post(log.request(0)).status_code == 200
    fork = log.sign(log.text(10, bytes(32)))
    assert witness.post(request(10, [], fork)).status_code == 422
    done = qed("witness", "status", "--database", str(witness.database))
    assert (done.returncode, done.stderr) == (0, "")
    assert log.origin in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    [row] = map(json.loads, qed("--json", "witness", "status", "--database", str(witness.database)).stdout.splitlines())
    assert (row["Origin"], row["Size"], row["Evidence"]) == (log.origin, 10, 1)
    shown = qed("witness", "evidence", "--database", str(witness.database)).stdout
    assert all(line in shown for line in fork.splitlines())
    done = qed("--json", "witness", "evidence", "--database", str(witness.database))
    [record] = map(json.loads, done.stdout.splitlines())
    assert (record["Kind"], record["Note"], record["Last"]) == ("fork", fork, witness.last(log.origin).text)
    assert qed("witness", "status", "--database", str(witness.key)).returncode == 2


def test_a_shared_list_is_read() -> None:
    first, second = ForeignLog("one.example.com"), ForeignLog("key.example.com")
    text = f"""
# A comment.
logs/v0

vkey {first.vkey}
origin none
qpd 86400
bastion none
contact sysadmin (at) example.com

vkey {second.vkey}
origin two.example.com/log
"""
    one, two = logs_in(text.encode(), "list")
    assert (one.origin, one.per_day, one.vkeys) == ("one.example.com", 86_400, (first.vkey,))
    assert (two.origin, two.per_day) == ("two.example.com/log", None)
    assert logs_in(b"logs/v0\n", "list") == []


def test_logs_of_a_shared_list_that_cannot_be_used_are_skipped(caplog: pytest.LogCaptureFixture) -> None:
    usable = ForeignLog("one.example.com")
    ecdsa = vkey_of("two.example.com", 2, bytes(91))
    text = f"logs/v0\nvkey {ecdsa}\nvkey {usable.vkey}\nvkey {ForeignLog('three').vkey}\norigin with spaces\n"
    assert [log.origin for log in logs_in(text.encode(), "list")] == ["one.example.com"]
    assert [record.getMessage().split()[2] for record in caplog.records] == ["place=list:2", "place=list:4"]


def test_lists_may_overlap_and_what_the_operator_says_counts(
    witness: WitnessProcess, log: ForeignLog, tmp_path: Path
) -> None:
    other, stranger, own = ForeignLog("other.example.com"), ForeignLog(log.origin), ForeignLog(NAME)
    shared, second = tmp_path / "shared", tmp_path / "second"
    shared.write_text(f"logs/v0\nvkey {stranger.vkey}\nvkey {log.vkey}\nqpd 1\nvkey {other.vkey}\nvkey {own.vkey}\n")
    second.write_text(f"logs/v0\nvkey {other.vkey}\nqpd 5\n")
    witness.start("--new-database", "--logs", str(shared), "--logs", str(second), "--vkey", log.vkey)
    assert "for 2 logs" in witness.stdout
    skipped = [line for line in witness.stderr.splitlines() if "log skipped" in line]
    assert [f"place={shared}:{number}" in line for number, line in zip((2, 6), skipped, strict=True)] == [True, True]
    assert f"{witness.logs}: log 1" in skipped[0]
    # That of the operator has no rate.
    for _ in range(12):
        assert witness.post(log.request(0, 3)).status_code in {200, 409}
        assert witness.post(log.request(3, 3)).status_code == 200
    witness.stop()
    assert "--vkey: expected each log once" in witness.refused("--vkey", stranger.vkey)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logs/v0\norigin x\n", "line 2: expected a vkey first"),
        ("logs/v0\nvkey a\nqpd 1\nqpd 2\n", "line 4: expected one qpd"),
        ("logs/v0\nvkey a\nqpd many\n", "line 2: expected a number"),
        ("logs/v1\n", "logs/v0 or TOML"),
        ("", "expected tables"),
        ("[log]\n", "expected tables"),
        ("x = 1\n", "expected tables"),
        ("[[log]]\n", "log 1: expected vkeys"),
        ("[[log]]\nvkeys = []\n", "log 1: expected at least one vkey"),
        ("[[log]]\nvkeys = [1]\n", "log 1: expected vkeys as a list of strings"),
        ('[[log]]\nvkeys = ["x"]\n', "log 1: expected a key"),
        ("[[log]]\nvkeys = []\norigin = 1\n", "log 1: expected origin"),
        ("[[log]]\nvkeys = []\nper_day = true\n", "log 1: expected per_day"),
        ("[[log]]\nvkeys = []\nper_day = 0\n", "log 1: expected 1 to"),
        ("[[log]]\nvkeys = []\nother = 1\n", "log 1: expected a table with"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(WitnessError, match=message):
        logs_in(text.encode(), "list")
    with pytest.raises(WitnessError, match="UTF-8"):
        logs_in(b"\xff", "list")
    with pytest.raises(WitnessError, match="at most"):
        logs_in(b"#" * (9 * 1024 * 1024), "list")


def test_keys_of_a_log_have_one_name_or_an_origin_and_are_for_logs() -> None:
    one, other = ForeignLog("one.example.com"), ForeignLog("other.example.com")
    with pytest.raises(WitnessError, match=r"the names one\.example\.com and other\.example\.com"):
        KnownLog.of([one.vkey, other.vkey])
    assert KnownLog.of([one.vkey, other.vkey], origin="x").origin == "x"
    with pytest.raises(WitnessError, match="each key once"):
        KnownLog.of([one.vkey, one.vkey])
    with pytest.raises(WitnessError, match="01 or 06"):
        KnownLog.of([new_witness_keys("x")[0].vkey])
    with pytest.raises(WitnessError, match="a name of"):
        KnownLog.of([one.vkey], origin="with spaces")
    with pytest.raises(WitnessError, match="each log once"):
        KnownLogs([KnownLog.of([one.vkey]), KnownLog.of([other.vkey], origin=one.origin)], witness=NAME)


def test_a_store_changes_nothing_if_a_transaction_fails(tmp_path: Path) -> None:
    keys = new_witness_keys(NAME)
    store = Store.create(tmp_path / "witness.db", keys)
    state = state_of(1, 5)
    with store.transaction():
        store.put(state)

    def fail() -> None:
        with store.transaction():
            store.put(state_of(2, 6))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.last("log") == state
    assert store.last("other") is None
    store.close()
    again = Store.open(tmp_path / "witness.db", keys)
    assert again.states() == [state]
    assert again.vkeys() == [key.vkey for key in keys]
    (synchronous,) = again._connection.execute("PRAGMA synchronous").fetchone()
    (journal,) = again._connection.execute("PRAGMA journal_mode").fetchone()
    assert (synchronous, journal) == (1, "wal")
    again.close()
