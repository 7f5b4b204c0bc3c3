"""`qed publish s3://…`: a bucket that grows with its log, and survives crashes, other publishers and false stores."""

from __future__ import annotations

import functools
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tlog_scales.backend import HttpBackend
from tlog_scales.reader import TilesReader

import qed
from buckets import BUCKET, CREDENTIALS, Shelf, objects_in, serving_moto
from commands import QED, environment
from commands import qed as run
from published import entries_of, log_of, publish, zipped
from qed._client.connections import Security
from qed.errors import DamagedFile, MonitorError, ProtocolError, QedError, Unavailable
from qed.monitoring.bucket import Bucket
from qed.monitoring.findings import Kind
from qed.monitoring.places import source_of
from qed.monitoring.publisher import Publisher
from qed.monitoring.s3 import S3Options
from qed.monitoring.sources import FolderSource
from qed.policy import Policy
from signing import leaf, policy_of, root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from published import Answer
    from qed.monitoring.publisher import Publication

_prefixes = (f"log{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with serving_moto() as url:
        yield url


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    Path("policy").write_text(policy_of())
    return tmp_path


@pytest.fixture
def prefix() -> str:
    return next(_prefixes)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def shelf_url(shelf: Shelf) -> Iterator[str]:
    with shelf.serving() as url:
        yield url


def entries(*sizes: int, first: bytes | None = None) -> list[bytes]:
    log = qed.Log()
    if first is not None:
        log.add(first)
    log_of(log, *sizes)
    return entries_of(log)


def bucket(url: str, prefix: str = "log", timeout_s: float = 10) -> Bucket:
    return Bucket(f"s3://{BUCKET}/{prefix}", S3Options(endpoint=url), Security(), timeout_s=timeout_s)


def copied(source: str, target: Bucket) -> Publication:
    return Publisher(target, Policy(policy_of().encode()), FolderSource(Path(source))).run()


def audited(url: str, prefix: str = "log") -> int:
    return run("audit", f"s3://{BUCKET}/{prefix}", "--policy", "policy", "--s3-endpoint", url).returncode


def test_a_bucket_grows_with_its_log_and_is_one_that_anybody_can_audit(store: str, prefix: str) -> None:
    place = f"s3://{BUCKET}/{prefix}"
    for sizes in ((1,), (1, 300), (1, 300, 255, 256, 1)):
        publish(Path("source"), entries(*sizes))
        assert copied("source", bucket(store, prefix)).published == sum(sizes)
    done = run("publish", "source", place, "--policy", "policy", "--once", "--s3-endpoint", store)
    assert (done.returncode, done.stderr) == (0, "")
    assert "813 entries are published, 0 files are new" in done.stdout
    audit = run("--json", "audit", place, "--policy", "policy", AWS_ENDPOINT_URL=store)
    assert (audit.returncode, json.loads(audit.stdout)["Replayed"]) == (0, 813)
    published = objects_in(store, prefix)
    for path in Path("source").rglob("*"):
        if path.is_file():
            assert published[str(path.relative_to("source"))].content == path.read_bytes()


def test_tools_of_others_read_the_bucket(store: str, prefix: str) -> None:
    world = publish(Path("source"), entries(1, 300, 255))
    copied("source", bucket(store, prefix))
    backend = HttpBackend(f"{store}/{BUCKET}/{prefix}")
    backend.session.headers["Host"] = "s3.amazonaws.com"
    reader = TilesReader(backend)
    reader.set_size(556)
    assert reader.calculate_root_hash() == root([leaf(entry) for entry in world.entries])
    for index in (0, 255, 256, 555):
        entry = reader.get_entry(index)
        assert entry == world.entries[index]
        reader.get_inclusion_proof(index, 556).check(leaf(entry), reader.calculate_root_hash())
    backend.session.close()


def test_files_have_the_headers_with_which_they_are_to_be_served(store: str, prefix: str) -> None:
    publish(Path("source"), entries(300))
    copied("source", bucket(store, prefix))
    served = {path: answer.headers for path, answer in objects_in(store, prefix).items()}
    assert set(served) == {
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/44",
    }
    checkpoint = served.pop("checkpoint")
    assert (checkpoint["content-type"], checkpoint["cache-control"]) == ("text/plain; charset=utf-8", "max-age=1")
    for headers in served.values():
        assert headers["content-type"] == "application/octet-stream"
        assert headers["cache-control"] == "public, max-age=31536000, immutable"


def test_two_publishers_at_once_publish_one_log(store: str, prefix: str) -> None:
    for number, size in enumerate((400, 300, 700, 600)):
        publish(Path(f"source{number}"), entries(100, 200, 100, 200, 100)[:size])
    # Each begins with what is older for the other, and has seen no checkpoint in the bucket.
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda number: copied(f"source{number}", bucket(store, prefix)), range(4)))
    assert [publication.finding for publication in done] == [None] * 4
    assert objects_in(store, prefix)["checkpoint"].text.split("\n")[1] == "700"
    assert audited(store, prefix) == 0


def test_a_checkpoint_is_not_replaced_by_one_that_does_not_know_it(shelf: Shelf, shelf_url: str) -> None:
    publish(Path("older"), entries(100))
    publish(Path("source"), entries(100, 200))
    publish(Path("newer"), entries(100, 200, 300))
    copied("older", bucket(shelf_url))
    faster = iter(["newer"])

    def other_is_faster(method: str, path: str) -> Answer | None:
        if (method, path) == ("PUT", "log/checkpoint"):
            for source in faster:
                copied(source, bucket(shelf_url))
        return None

    shelf.before = other_is_faster
    done = copied("source", bucket(shelf_url))
    # It began again, and found a larger checkpoint.
    assert (done.finding, done.published, done.checkpoint.size) == (None, 600, 300)
    assert shelf.files["log/checkpoint"] == Path("newer/checkpoint").read_bytes()


def test_another_log_in_the_bucket_is_refused(store: str, prefix: str) -> None:
    publish(Path("source"), entries(300))
    copied("source", bucket(store, prefix))
    publish(Path("fork"), entries(400, first=b"another first event"))
    command = ("publish", "fork", f"s3://{BUCKET}/{prefix}", "--policy", "policy", "--once", "--s3-endpoint", store)
    done = run(*command)
    assert done.returncode == 1
    (evidence,) = Path().glob("fork-*.json")
    assert run("evidence", str(evidence), "--policy", "policy").returncode == 0
    assert objects_in(store, prefix)["checkpoint"].content == Path("source/checkpoint").read_bytes()


def test_a_bucket_that_is_ahead_stays_so(shelf: Shelf, shelf_url: str) -> None:
    publish(Path("source"), entries(100, 300))
    copied("source", bucket(shelf_url))
    before = dict(shelf.files)
    publish(Path("older"), entries(100))
    assert copied("older", bucket(shelf_url)).finding is None
    publish(Path("fork"), entries(100, first=b"another first event"))
    finding = copied("fork", bucket(shelf_url)).finding
    assert finding is not None
    assert (finding.kind, finding.evidence is not None) == (Kind.FORK, True)
    assert shelf.files == before


def test_a_tampered_tile_is_neither_accepted_nor_replaced(shelf: Shelf, shelf_url: str) -> None:
    publish(Path("source"), entries(300))
    copied("source", bucket(shelf_url))
    del shelf.files["log/checkpoint"]
    for path in ("log/tile/0/000", "log/tile/entries/000", "log/tile/1/000.p/1"):
        whole = shelf.files[path]
        shelf.files[path] = whole[:-1] + bytes([whole[-1] ^ 1])
        before = dict(shelf.files)
        with pytest.raises(DamagedFile, match=path.removeprefix("log/")):
            copied("source", bucket(shelf_url))
        assert shelf.files == before
        shelf.files[path] = whole


def refused_after(shelf: Shelf, allowed: int, method: str, _path: str) -> Answer | None:
    return (403, {}, b"") if method == "PUT" and len(shelf.puts) >= allowed else None


def test_a_crash_between_any_two_writes_leaves_the_old_checkpoint(shelf: Shelf, shelf_url: str) -> None:
    publish(Path("older"), entries(300))
    copied("older", bucket(shelf_url))
    old = dict(shelf.files)
    publish(Path("source"), entries(300, 300))
    for allowed in itertools.count():
        shelf.files, shelf.puts = dict(old), []
        shelf.before = functools.partial(refused_after, shelf, allowed)
        try:
            copied("source", bucket(shelf_url))
        except ProtocolError:
            assert shelf.files["log/checkpoint"] == old["log/checkpoint"]
            assert old.items() <= shelf.files.items()
            shelf.before = lambda _method, _path: None
            if allowed % 4 == 2:
                assert copied("source", bucket(shelf_url)).published == 600
            continue
        assert shelf.puts[-1] == "log/checkpoint"
        assert shelf.files["log/checkpoint"] == Path("source/checkpoint").read_bytes()
        assert allowed > 5
        return


def test_a_killed_publisher_is_continued_by_the_next(shelf: Shelf, shelf_url: str) -> None:
    publish(Path("source"), entries(600))
    is_half = threading.Event()

    def wait_when_half(method: str, _path: str) -> Answer | None:
        if method == "PUT" and len(shelf.puts) >= 4:
            is_half.set()
            time.sleep(10)
        return None

    shelf.before = wait_when_half
    command = [QED, "publish", "source", f"s3://{BUCKET}/log", "--policy", "policy", "--once"]
    with subprocess.Popen([*command, "--s3-endpoint", shelf_url], env=environment(), stderr=subprocess.DEVNULL) as dead:
        assert is_half.wait(30)
        dead.send_signal(signal.SIGKILL)
    assert "log/checkpoint" not in shelf.files
    shelf.before = lambda _method, _path: None
    assert copied("source", bucket(shelf_url)).published == 600
    assert audited(shelf_url) == 0


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (507, b"XMinioStorageFull", Unavailable),
        (503, b"SlowDown", Unavailable),
        (403, b"QuotaExceeded", ProtocolError),
        (400, b"EntityTooLarge\x1b[31m", ProtocolError),
    ],
)
def test_a_full_or_busy_store_ends_in_a_typed_error(
    shelf: Shelf, shelf_url: str, status: int, code: bytes, error: type[QedError]
) -> None:
    publish(Path("source"), entries(300))
    body = b"<Error><Code>" + code + b"</Code></Error>"
    shelf.before = lambda method, path: (
        (status, {}, body) if method == "PUT" and path.startswith("log/tile/entries") else None
    )
    with pytest.raises(error, match=f"answered {status}") as caught:
        copied("source", bucket(shelf_url, timeout_s=1))
    assert str(caught.value).isprintable()
    assert "log/checkpoint" not in shelf.files


def test_a_store_that_does_not_answer_ends_in_a_typed_error(shelf: Shelf, shelf_url: str) -> None:
    publish(Path("source"), entries(300))
    is_over = threading.Event()
    shelf.before = lambda _method, _path: (503, {}, b"") if is_over.wait(20) else None
    with pytest.raises(Unavailable, match="does not answer in time"):
        copied("source", bucket(shelf_url, timeout_s=0.3))
    is_over.set()
    assert not shelf.files


def test_an_answer_that_cannot_be_read_ends_in_one_line(shelf: Shelf, shelf_url: str) -> None:
    publish(Path("source"), entries(300))
    shelf.after = lambda method, _path, answer: (200, {}, b"") if method == "PUT" else answer
    with pytest.raises(ProtocolError, match="ETag") as caught:
        copied("source", bucket(shelf_url))
    assert str(caught.value).isprintable()


def test_a_store_that_forgets_what_it_accepts_does_not_get_a_checkpoint(shelf: Shelf, shelf_url: str) -> None:
    publish(Path("source"), entries(300))
    seen: set[str] = set()

    def forgets(method: str, path: str) -> Answer | None:
        if method == "GET" or "checkpoint" in path:
            return None
        is_new = path not in seen
        seen.add(path)
        return (200, {"ETag": '"1"'}, b"") if is_new else (412, {}, b"")

    shelf.before = forgets
    with pytest.raises(DamagedFile, match="cannot be read back"):
        copied("source", bucket(shelf_url))
    assert not shelf.files


@pytest.mark.parametrize("ignored", ["if-none-match", "if-match"])
def test_a_store_that_ignores_conditions_is_refused(
    shelf: Shelf, shelf_url: str, ignored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(Path("source"), entries(300))
    heeding = Shelf.answer

    def answer(self: Shelf, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        headers.pop(ignored, None)
        return heeding(self, method, path, headers, body)

    monkeypatch.setattr(Shelf, "answer", answer)
    with pytest.raises(ProtocolError, match=rf"(?i)ignores {ignored}"):
        copied("source", bucket(shelf_url))
    assert "log/checkpoint" not in shelf.files


@pytest.mark.parametrize("tag", ['"another"', 'W/"weak"', None])
def test_wrong_etags_end_in_a_typed_error(shelf: Shelf, shelf_url: str, tag: str | None) -> None:
    publish(Path("older"), entries(100))
    copied("older", bucket(shelf_url))
    publish(Path("source"), entries(100, 100))

    def with_tag(method: str, path: str, answer: Answer) -> Answer:
        status, headers, body = answer
        if (method, path) != ("GET", "log/checkpoint"):
            return answer
        others = {name: value for name, value in headers.items() if name != "ETag"}
        return status, others if tag is None else others | {"ETag": tag}, body

    shelf.after = with_tag
    with pytest.raises(QedError, match=r"(?i)etag"):
        copied("source", bucket(shelf_url))
    assert shelf.files["log/checkpoint"] == Path("older/checkpoint").read_bytes()


def long(answer: Answer) -> Answer:
    status, headers, body = answer
    return status, headers, body + b"x" * 300_000


@pytest.mark.parametrize(
    ("change", "is_read"), [(zipped, True), (long, False), (lambda answer: zipped(long(answer)), False)]
)
def test_a_bucket_is_read_within_the_limits_of_a_file(
    shelf: Shelf, shelf_url: str, change: Callable[[Answer], Answer], *, is_read: bool
) -> None:
    publish(Path("source"), entries(300))
    copied("source", bucket(shelf_url))
    content = bucket(shelf_url).read("tile/entries/000")
    shelf.after = lambda _method, _path, answer: change(answer)
    if is_read:
        assert bucket(shelf_url).read("tile/entries/000") == content
        return
    with pytest.raises(DamagedFile, match="more than 27648 bytes"):
        bucket(shelf_url).read("tile/entries/000")


@pytest.mark.parametrize(
    ("place", "endpoint", "words"),
    [
        ("s3://", "https://s3.example.com", "expected s3://BUCKET"),
        ("s3://bucket/a//b", "https://s3.example.com", "expected s3://BUCKET"),
        ("s3://bucket/../other", "https://s3.example.com", "expected s3://BUCKET"),
        ("s3://bucket/log?versionId=1", "https://s3.example.com", "expected s3://BUCKET"),
        ("s3://bucket/log", "http://s3.example.com", "is not encrypted"),
        ("s3://bucket/log", "https://user:secret@s3.example.com", "one with an @"),
        ("s3://bucket/log", "s3.example.com", "expected the URL of a store"),
    ],
)
def test_places_that_cannot_be_used_are_refused(place: str, endpoint: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Bucket(place, S3Options(endpoint=endpoint), Security(), timeout_s=1)
    assert "secret" not in str(caught.value)


def test_neither_key_nor_certificate_of_the_servers_is_sent_to_the_store(
    shelf_url: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    answering = shelf.answer

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        seen.append(str(headers))
        return answering(method, path, headers, body)

    monkeypatch.setattr(shelf, "answer", answer)
    target = Bucket(f"s3://{BUCKET}/log", S3Options(endpoint=shelf_url), Security(api_key="secret"), timeout_s=5)
    assert target.stored() is None
    assert seen
    assert "secret" not in "".join(seen)


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "qed.monitoring.bucket")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MonitorError, match=r"pip install 'qed-log\[s3\]'"):
        source_of("s3://bucket/log", Security(), timeout_s=1)


def test_without_credentials_the_message_names_the_variables(monkeypatch: pytest.MonkeyPatch, shelf_url: str) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    # Where Amazon's machines have their credentials, there is nothing.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.0.0.invalid")
    with pytest.raises(qed.QedError, match="AWS_ACCESS_KEY_ID"):
        bucket(shelf_url, timeout_s=0.3).read("checkpoint")
