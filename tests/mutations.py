"""Ways to damage a proof: small damage exhaustively, larger damage at random."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias, cast

from oracle import Json, b64
from specimens import dumps

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

Place: TypeAlias = tuple[str, ...]  # the names that lead to a value

WRONG: tuple[object, ...] = (
    *(None, True, False, -1, 0, 1, 1.5, 1e300, 1 << 63, (1 << 64) - 1, 1 << 64, 10**40),
    *("", " ", "null", "0", "\u0660", "\0", "A" * 44, "A" * 43 + "=", b64(bytes(31)), b64(bytes(33)), b64(bytes(32))),
    *([], {}, [None], {"": ""}, {"0|0": None}, [{}]),
)
EXTRA_POSITIONS = ("", "x", "1024|0", "0|63", "0x" + "0" * 64 + "|0", "0x" + "0" * 64 + "|256")
PATHS = ("Hyper", "History", "AuditPath")
EVERY_POSITION_UP_TO = 64  # longer paths are uniform in the middle: there, every 32nd position represents the others


def flips(data: bytes, step: int = 1) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each bit, or of every `step`th, and `data` with that bit flipped."""
    for bit in range(0, 8 * len(data), step):
        byte = bit // 8
        yield bit, data[:byte] + bytes([data[byte] ^ 1 << bit % 8]) + data[byte + 1 :]


# Values in an answer.


def value_at(answer: Json, place: Place) -> object:
    value: object = answer
    for name in place:
        value = cast("Json", value)[name]
    return value


def put(answer: Json, place: Place, value: object) -> Json:
    name, *rest = place
    return {**answer, name: put(cast("Json", answer[name]), tuple(rest), value) if rest else value}


def removed(answer: Json, place: Place) -> Json:
    name, *rest = place
    if rest:
        return {**answer, name: removed(cast("Json", answer[name]), tuple(rest))}
    return {other: value for other, value in answer.items() if other != name}


def renamed(answer: Json, place: Place, name: str) -> Json:
    return put(removed(answer, place), (*place[:-1], name), value_at(answer, place))


def places(answer: Json, above: Place = ()) -> list[Place]:
    """Return the places of all values, nested ones included; for a very long path, only a sample of its positions."""
    found: list[Place] = []
    sample = max(1, len(answer) // 2) if len(answer) <= EVERY_POSITION_UP_TO else 32
    for number, (name, value) in enumerate(answer.items()):
        if len(answer) <= EVERY_POSITION_UP_TO or number % sample == 0 or number == len(answer) - 1:
            found.append((*above, name))
            if isinstance(value, dict):
                found += places(value, (*above, name))
    return found


def all_damage(answer: Json) -> Iterator[tuple[Place, bytes]]:
    """Yield every way to damage one value of the JSON form: its place, and the text."""
    for place in places(answer):
        for damaged in (*damaged_values(answer, place), *damaged_names(answer, place)):
            yield place, dumps(damaged)
        for text in doubled(answer, place):
            yield place, text
    for one, other in swappable(answer):
        swapped = put(put(answer, one, value_at(answer, other)), other, value_at(answer, one))
        if swapped != answer:
            yield one, dumps(swapped)


def damaged_values(answer: Json, place: Place) -> Iterator[Json]:
    original = value_at(answer, place)
    yield removed(answer, place)
    for value in (*WRONG, *near(original)):
        if dumps(value) != dumps(original):
            yield put(answer, place, value)


def damaged_names(answer: Json, place: Place) -> Iterator[Json]:
    """Yield answers in which a position is misspelt, or a path has one more."""
    if len(place) > 1 and place[-2] in PATHS:
        for name in misspelt(place[-1]):
            if name != place[-1]:
                yield renamed(answer, place, name)
    if place[-1] in PATHS and isinstance(value_at(answer, place), dict):
        for extra in EXTRA_POSITIONS:
            yield put(answer, (*place, extra), b64(bytes(32)))


def near(value: object) -> Iterator[object]:
    """Yield values of the same type that are almost `value`, and other spellings of it."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1, value + (1 << 32), -value, float(value), str(value), [value])
    elif isinstance(value, str):
        raw = base64.b64decode(value)
        yield from (b64(flipped) for _, flipped in flips(raw, step=51))
        yield from (b64(raw[:-1]), b64(raw + b"\0"), b64(raw[::-1]), b64(raw + raw), raw.hex(), [value])
        yield from (value[:-1], value + "=", value + "\n", " " + value, value.replace("=", "."), value + "\u00e9")
        yield base64.urlsafe_b64encode(raw + b"\xff\xff").decode()
        yield value[:-2] + chr(ord(value[-2]) + 1) + value[-1]  # bits past the end, mostly
    elif isinstance(value, dict):
        yield from (list(value), list(value.values()), str(value), {name: {} for name in value})


def misspelt(position: str) -> Iterator[str]:
    """Yield other spellings of a position and positions near it, none of them right."""
    index, height = position.split("|")
    yield from (f"0{index}|{height}", f"+{index}|{height}", f"-{index}|{height}", f" {index}|{height}", f"{index}|")
    yield from (f"{index}|0{height}", f"{index}|+{height}", f"{index}|-{height}", f"{index}|{height} ", f"|{height}")
    yield from (f"{index}|{height}|0", f"{index}", "", "|", f"{height}|{index}", f"{index}||{height}", f"\0{position}")
    yield from (f"{index}|{int(height) + step}" for step in (1, -1, 256, 65536, 1 << 64))
    yield from (
        f"{index}.0|{height}",
        f"{index}|{height}.0",
        f"{index}|{height}e0",
        f"{index}\u00a0|{height}",
        "9" * 9999,
    )
    yield "".join(chr(ord(digit) - ord("0") + 0x660) if digit.isdigit() else digit for digit in position)
    yield "".join(chr(ord(digit) - ord("0") + 0xFF10) if digit.isdigit() else digit for digit in position)
    if not index.startswith("0x"):
        yield from (f"{int(index) + 1}|{height}", f"{int(index) + (1 << 64)}|{height}", f"0x{int(index):x}|{height}")
        return
    digits = index[2:]
    yield from (f"{digits}|{height}", f"0X{digits}|{height}", f"0x{digits[1:]}|{height}", f"0x{digits}0|{height}")
    yield from (f"0x{int(digits, 16) ^ 1 << bit:064x}|{height}" for bit in (0, int(height), 255))
    if digits.upper() != digits:
        yield f"0x{digits.upper()}|{height}"


def doubled(answer: Json, place: Place) -> Iterator[bytes]:
    """Yield texts in which the name at `place` is duplicated: with the same value, and with another, in both orders."""
    name, value = dumps(place[-1]), dumps(value_at(answer, place))
    text, once = dumps(answer), name + b":" + value
    for other in (value, b"null", b"0"):
        twice = name + b":" + other
        yield text.replace(once, once + b"," + twice, 1)
        yield text.replace(once, twice + b"," + once, 1)


def swappable(answer: Json) -> Iterator[tuple[Place, Place]]:
    """Yield pairs of places: neighbours in a path, and all pairs of fields."""
    found = places(answer)
    fields = [place for place in found if len(place) == 1]
    yield from ((one, other) for one in fields for other in fields if one < other)
    nodes = [place for place in found if len(place) > 1]
    yield from ((one, other) for one, other in pairwise(nodes) if len(one) == len(other))


# Random damage.


def damaged_bytes(dice: random.Random, data: bytes, donor: bytes) -> bytes:
    """Return `data` with one or a few random damages; `donor` is another proof, to cut from."""
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        data = _damaged_once(dice, data, donor)
    return data


def _damaged_once(dice: random.Random, data: bytes, donor: bytes) -> bytes:
    start, length = dice.randint(0, len(data)), min(32, dice.randint(1, 40))
    before, piece, after = data[:start], data[start : start + length], data[start + length :]
    choices = (
        before + bytes([data[start] ^ 1 << dice.randrange(8)]) + data[start + 1 :] if start < len(data) else data[:-1],
        before + dice.randbytes(1) + data[start + 1 :],
        before + after,
        before + piece + piece + after,
        before + dice.randbytes(len(piece)) + after,
        before + dice.randbytes(length) + data[start:],
        before + donor[start : start + length] + after,
        before + donor[dice.randint(0, len(donor)) :],
        after + piece + before,
        before,
    )
    return dice.choice(choices)


def damaged_answer(dice: random.Random, answer: Json, donor: Json) -> Json:
    """Return `answer` with values removed, replaced by others of the same or another proof, or renamed."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        found, theirs = places(answer), places(donor)
        if not found:
            return answer
        place = dice.choice(found)
        values = (value_at(answer, dice.choice(found)), value_at(donor, dice.choice(theirs)), dice.choice(WRONG))
        name = dice.choice(found)[-1]
        choices = (
            removed(answer, place),
            renamed(answer, place, dice.choice((name, dice.choice(theirs)[-1]))),
            *(put(answer, place, value) for value in values),
        )
        answer = dice.choice(choices)
    return answer
