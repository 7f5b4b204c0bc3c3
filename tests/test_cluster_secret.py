"""The cluster secret and its file: what is accepted, and what is refused with one plain line."""

from __future__ import annotations

import base64
import os
import secrets
from typing import TYPE_CHECKING

import pytest

from qed.cli.main import main
from qed.server.cluster_secret import make_secret, read_secret
from qed.server.config import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_made_secrets_differ_and_are_32_random_bytes(tmp_path: Path) -> None:
    made = [make_secret() for _ in range(4)]
    assert len(set(made)) == 4
    assert len(base64.b64decode(made[0], validate=False)) == 32
    assert read_secret(secret_file(tmp_path, made[0].encode())) == made[0].strip().encode()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b" \n\n"])
def test_white_space_at_the_end_of_a_text_is_not_part_of_it(tmp_path: Path, end: bytes) -> None:
    text = secrets.token_hex(32).encode()
    assert read_secret(secret_file(tmp_path, text + end)) == text


def test_random_bytes_may_end_with_anything(tmp_path: Path) -> None:
    content = bytes(range(128, 159)) + b"\n"
    assert read_secret(secret_file(tmp_path, content)) == content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds 0"),
        (b"\n" * 100, "holds 0"),
        (b"0123456789abcdef" * 2 + b"\n", None),
        (b"0123456789abcdef0123456789abcde\n", "at least 32 bytes"),
        (b"changeme" * 8, "repeats"),
        (bytes(64), "repeats"),
        (b"x" * 70_000, "at most 65536 bytes"),
    ],
)
def test_short_or_repeated_secret_is_refused(tmp_path: Path, content: bytes, reason: str | None) -> None:
    path = secret_file(tmp_path, content)
    if reason is None:
        assert read_secret(path) == content.strip()
        return
    with pytest.raises(SettingsError, match=reason):
        read_secret(path)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o660, 0o666])
def test_secret_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, make_secret().encode(), mode)
    with pytest.raises(SettingsError, match=rf"mode {mode:04o}\): chmod 600"):
        read_secret(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_secret_for_an_owner_and_a_group_is_accepted(tmp_path: Path, mode: int) -> None:
    read_secret(secret_file(tmp_path, make_secret().encode(), mode))


def test_something_else_than_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, reason in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "irectory"),
        (tmp_path / "pipe", "something else"),
    ):
        with pytest.raises(SettingsError, match=reason):
            read_secret(path)


def test_command_writes_a_secret_for_its_owner_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "secret"
    with pytest.raises(SystemExit) as done:
        main(["cluster", "secret", "--out", str(path)])
    assert done.value.code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    read_secret(path)
    # A second run must not replace the secret of a cluster that exists.
    before = path.read_bytes()
    with pytest.raises(SystemExit) as done:
        main(["cluster", "secret", "--out", str(path)])
    assert done.value.code == 2
    assert path.read_bytes() == before
    assert f"{path}: File exists" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_command_prints_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cluster", "secret"])
    assert len(base64.b64decode(capsys.readouterr().out)) == 32
