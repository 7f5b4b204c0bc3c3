"""Whom a client asks, and when again: the policy alone, without sockets or clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adversary import error
from qed import calls
from qed.attempts import LONGEST_PAUSE_S, Endpoints, Failure, Send, converse
from qed.calls import Answer, Call
from qed.errors import MalformedRequest, NotLeader, Overloaded, ProtocolError, QedError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

ONE, TWO, THREE = "http://one:1", "http://two:2", "http://three:3"
REFUSED = Failure("connection refused", may_have_arrived=False)
CUT_OFF = Failure("cut off", may_have_arrived=True)
LATE = Failure("late", may_have_arrived=True, is_timeout=True)

ADD = calls.add(b"event", if_absent=False)
ADD_IF_ABSENT = calls.add(b"event", if_absent=True)
READ = calls.snapshot(7)


def answer(status: int, url: str = ONE + "/events", body: bytes = b"", **headers: str) -> Answer:
    return Answer(url, status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def steps(
    call: Call[object], endpoints: Endpoints, outcomes: Iterable[Answer | Failure], attempts: int = 1
) -> tuple[list[Send], object]:
    """Return what was sent while `outcomes` came back, and how the call ended, a `QedError` or its result."""
    sent: list[Send] = []
    conversation = converse(call, endpoints, attempts=attempts)
    try:
        sent.append(next(conversation))
        sent.extend(map(conversation.send, outcomes))
    except StopIteration as stop:
        return sent, stop.value
    except QedError as exc:
        return sent, exc
    raise AssertionError(f"still asking: {sent}")


def urls(sent: Iterable[Send]) -> list[str]:
    return [send.url for send in sent]


def endpoints(*names: str) -> Endpoints:
    return Endpoints.parse(names)


failures = st.sampled_from([REFUSED, CUT_OFF, LATE])
answers = st.builds(
    answer,
    st.sampled_from([200, 201, 204, 301, 307, 308, 400, 404, 408, 412, 413, 429, 500, 502, 503, 504]),
    retry_after=st.sampled_from(["0", "1", "99", "soon"]),
    location=st.just(TWO + "/events"),
) | st.builds(answer, st.sampled_from([307, 429, 503]))


@given(outcomes=st.lists(failures | answers, min_size=40, max_size=40), attempts=st.integers(1, 4))
def test_an_insertion_is_never_sent_again_after_it_may_have_arrived(
    outcomes: list[Answer | Failure], attempts: int
) -> None:
    sent, _ = steps(ADD, endpoints(ONE, TWO, THREE), outcomes, attempts)
    for outcome in outcomes[: len(sent) - 1]:
        if isinstance(outcome, Failure):
            assert not outcome.may_have_arrived
        else:
            assert outcome.status in {307, 429} or (outcome.status == 503 and "retry-after" in outcome.headers)


@given(outcomes=st.lists(failures | answers, min_size=40, max_size=40), attempts=st.integers(1, 4))
def test_every_call_ends(outcomes: list[Answer | Failure], attempts: int) -> None:
    for call in (ADD, ADD_IF_ABSENT, READ):
        sent, end = steps(call, endpoints(ONE, TWO, THREE), outcomes, attempts)
        assert isinstance(end, QedError)
        assert len(sent) <= attempts * 3 * 2


def test_a_503_without_retry_after_may_have_added() -> None:
    sent, end = steps(ADD, endpoints(ONE, TWO), [answer(503)], attempts=3)
    assert len(sent) == 1
    assert isinstance(end, Unavailable)
    assert "may have happened" in str(end)


@pytest.mark.parametrize("call", [ADD_IF_ABSENT, READ], ids=["if_absent", "read"])
def test_what_changes_nothing_when_repeated_goes_on_to_the_next_endpoint(call: Call[object]) -> None:
    sent, _ = steps(call, endpoints(ONE, TWO), [CUT_OFF, answer(500)])
    assert urls(sent) == [ONE + call.path, TWO + call.path]


def test_unavailable_names_every_endpoint_and_its_cause() -> None:
    _, end = steps(READ, endpoints(ONE, TWO), [REFUSED, LATE])
    assert isinstance(end, Unavailable)
    assert f"{ONE}: connection refused" in str(end)
    assert f"{TWO}: late" in str(end)


def test_an_endpoint_that_does_not_serve_is_asked_last_next_time() -> None:
    known = endpoints(ONE, TWO, THREE)
    steps(READ, known, [REFUSED, answer(400)])
    sent, _ = steps(READ, known, [REFUSED, REFUSED, REFUSED])
    assert urls(sent) == [base + READ.path for base in (TWO, THREE, ONE)]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 412, 413, 429])
def test_a_4xx_never_marks_an_endpoint_as_down(status: int) -> None:
    known = endpoints(ONE, TWO)
    steps(READ, known, [answer(status), answer(status)])
    assert known.in_order() == (ONE, TWO)


def test_pauses_come_only_between_rounds_and_grow() -> None:
    sent, _ = steps(READ, endpoints(ONE, TWO), [REFUSED] * 6, attempts=3)
    delays = [send.delay_s for send in sent]
    assert delays[0] == delays[1] == delays[3] == delays[5] == 0
    assert 0 < delays[2] <= 0.1 <= delays[4] <= 0.2


def test_retry_after_is_respected() -> None:
    sent, end = steps(ADD, endpoints(ONE), [answer(429, retry_after="2"), answer(429, retry_after="2")], attempts=2)
    assert sent[1].delay_s >= 2
    assert isinstance(end, Overloaded)


def test_a_longer_retry_after_than_a_caller_would_wait_ends_the_call() -> None:
    sent, end = steps(ADD, endpoints(ONE), [answer(429, retry_after=str(int(LONGEST_PAUSE_S) + 1))], attempts=3)
    assert len(sent) == 1
    assert isinstance(end, Overloaded)


@pytest.mark.parametrize("value", ["9" * 5000, "-1", "1.5", "٣", "", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_no_retry_after_disturbs_the_policy(value: str) -> None:
    _, end = steps(ADD, endpoints(ONE), [answer(429, retry_after=value)])
    assert isinstance(end, Overloaded)


def test_whoever_waited_for_a_whole_time_out_is_not_made_to_wait_for_another() -> None:
    sent, _ = steps(READ, endpoints(ONE, TWO), [LATE, REFUSED], attempts=3)
    assert len(sent) == 2


def test_a_redirect_is_followed_to_the_same_path_of_the_leader() -> None:
    sent, _ = steps(ADD, endpoints(ONE), [answer(307, location=TWO + "/events"), answer(400)])
    assert urls(sent) == [ONE + "/events", TWO + "/events"]


def test_the_second_redirect_of_a_call_is_not_followed() -> None:
    to_two, to_one = answer(307, location=TWO + "/events"), answer(307, TWO + "/events", location=ONE + "/events")
    sent, end = steps(ADD, endpoints(ONE, THREE), [to_two, to_one])
    assert len(sent) == 2
    assert isinstance(end, NotLeader)
    assert end.leader_url == TWO


def test_a_redirect_that_names_nobody_is_no_leader() -> None:
    _, end = steps(ADD, endpoints(ONE), [answer(307)])
    assert isinstance(end, NotLeader)
    assert end.leader_url is None


@pytest.mark.parametrize(("start", "other"), [("https", "http"), ("http", "https")])
def test_a_redirect_to_another_scheme_is_not_followed(start: str, other: str) -> None:
    sent, end = steps(
        ADD, endpoints(f"{start}://one"), [answer(307, f"{start}://one/events", location=f"{other}://two/events")]
    )
    assert len(sent) == 1
    assert isinstance(end, NotLeader)
    assert end.leader_url == f"{other}://two"


@pytest.mark.parametrize(
    "location",
    [
        "http://two:2/admin",
        "http://two:2/events?x=1",
        "http://two:2/events#x",
        "http://user:secret@two:2/events",
        "http://two:99999/events",
        "http:///events",
        "http://xn--/events",
        "ftp://two/events",
        "file:///events",
        "http://[::1/events",
        "http://two\x00/events",
        "//",
        "//two:2/events",
        "/events",
        "javascript:/events",
        "\ud800",
    ],
)
def test_a_location_that_is_not_the_same_path_of_a_server_is_refused(location: str) -> None:
    sent, end = steps(ADD, endpoints(ONE), [answer(307, location=location)])
    assert len(sent) == 1
    assert isinstance(end, ProtocolError)


def test_a_read_follows_no_redirect() -> None:
    sent, end = steps(READ, endpoints(ONE), [answer(307, location=TWO + READ.path)])
    assert len(sent) == 1
    assert isinstance(end, ProtocolError)


def test_a_leader_that_does_not_answer_is_named() -> None:
    _, end = steps(ADD, endpoints(ONE), [answer(307, location=TWO + "/events"), REFUSED])
    assert isinstance(end, Unavailable)
    assert TWO in str(end)


def test_a_servers_words_are_made_safe_to_print() -> None:
    body = error(400, "x\x1b[2J", "\x1b]0;owned\x07 " + "y" * 10_000).split(b"\r\n\r\n", 1)[1]
    _, end = steps(READ, endpoints(ONE), [answer(400, body=body)])
    assert isinstance(end, MalformedRequest)
    assert str(end).isprintable()
    assert len(str(end)) < 1000


@pytest.mark.parametrize(
    "given_endpoints",
    [
        [],
        "",
        "127.0.0.1:8800",
        "ftp://host",
        "http://",
        "http://host:0x50",
        "http://host:99999",
        "http://user:secret@host",
        "http://host/?query",
        "http://host/#fragment",
        "http://host\n",
        "http://xn--",
        "http://a.xn--zz:8800",
        ["http://host", "nonsense"],
    ],
)
def test_what_is_no_endpoint_is_refused_at_once(given_endpoints: str | list[str]) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        Endpoints.parse(given_endpoints)
    assert "secret" not in str(caught.value)


def test_an_endpoint_may_have_a_prefix_and_a_trailing_slash() -> None:
    sent, _ = steps(READ, Endpoints.parse("http://host/qed/"), [answer(400)])
    assert urls(sent) == ["http://host/qed/snapshots/7"]
