"""Which server a client asks, and when it retries: the policy alone, without sockets or clocks."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adversary import error
from qed._client import calls
from qed._client.administration import administer
from qed._client.attempts import LONGEST_PAUSE_S, Policy, Send, converse
from qed._client.calls import Answer, Call, Route
from qed._client.failures import Failure, FailureKind
from qed._client.topology import MEMBERS_MOST, Read, Topology, member_url
from qed._wire import SHARDS
from qed.errors import (
    MalformedRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    QedError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ONE, TWO, THREE = "http://one:1", "http://two:2", "http://three:3"
REFUSED = Failure(FailureKind.UNAVAILABLE, "connection refused")
CUT_OFF = Failure(FailureKind.UNANSWERED, "cut off")
LATE = Failure(FailureKind.TIMED_OUT, "late")

ADD = calls.add(b"event", if_absent=False, is_digest_sent=True)
ADD_IF_ABSENT = calls.add(b"event", if_absent=True, is_digest_sent=True)
READ = calls.snapshot(7)


def answer(status: int, url: str = ONE + "/events", body: bytes = b"", **headers: str) -> Answer:
    return Answer(url, status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def steps(
    call: Call[object], topology: Topology, outcomes: Iterable[Answer | Failure], attempts: int = 1
) -> tuple[list[Send], object]:
    """Return what was sent while `outcomes` came back, and how the call ended: a `QedError` or its result.

    Requests for the list of members that the client adds get an empty one.
    """
    sent: list[Send] = []
    conversation = converse(call, topology, Policy(attempts))
    outcomes = iter(outcomes)
    try:
        step = next(conversation)
        while True:
            if step.call.path == "/info/shards":
                step = conversation.send(answer(200, step.url, listed()))
                continue
            sent.append(step)
            outcome = next(outcomes, None)
            if outcome is None:
                break
            step = conversation.send(outcome)
    except StopIteration as stop:
        return sent, stop.value
    except QedError as exc:
        return sent, exc
    raise AssertionError(f"still asking: {sent}")


def listed(leader: str = "", node: str = "one", **members: str) -> bytes:
    """Return the list of members as member `node` reports it."""
    shards = {name: {"nodeId": name, "httpAddr": address} for name, address in members.items()}
    return json.dumps({"nodeId": node, "leaderId": leader, "uriScheme": "http", "shards": shards}).encode()


def urls(sent: Iterable[Send]) -> list[str]:
    return [send.url for send in sent]


def endpoints(*names: str) -> Topology:
    return Topology.parse(names)


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
            assert not outcome.kind.may_have_arrived
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
    assert known.everyone() == (ONE, TWO)


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


def rate_limited(retry_after_s: int, url: str = ONE) -> Answer:
    body = json.dumps({"error": "rate_limited", "message": "too many"}).encode()
    return answer(429, url, body, retry_after=str(retry_after_s))


@pytest.mark.parametrize("call", [ADD, READ])
def test_a_used_up_rate_is_waited_for_within_the_time_of_the_call(call: Call[Answer]) -> None:
    clock = Clock()
    topology = Topology.parse([ONE], clock)
    conversation = converse(call, topology, Policy(attempts=1, patience_s=30))
    step = next(conversation)
    for _ in range(3):
        step = conversation.send(rate_limited(9) if step.call is call else answer(200, ONE, listed()))
        if step.call is call:
            assert 9 <= step.delay_s <= 9.5
            clock.now_s += step.delay_s
    with pytest.raises(Overloaded, match="the rate of this key is used up"):
        conversation.send(rate_limited(9))


def test_a_used_up_rate_at_the_leader_is_not_asked_about_elsewhere() -> None:
    sent, _ = steps(ADD, endpoints(ONE, TWO), [rate_limited(1)] * 2)
    assert urls(sent) == [ONE + "/events"]


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


def test_a_redirect_loop_is_left_for_the_other_servers() -> None:
    to_two, to_one = answer(307, location=TWO + "/events"), answer(307, TWO + "/events", location=ONE + "/events")
    sent, end = steps(ADD, endpoints(ONE, THREE), [to_two, to_one, answer(400)])
    assert urls(sent) == [base + "/events" for base in (ONE, TWO, THREE)]
    assert isinstance(end, MalformedRequest)
    sent, end = steps(ADD, endpoints(ONE), [to_two, to_one])
    assert len(sent) == 2
    assert isinstance(end, NotLeader)
    assert end.leader_url == TWO


def test_a_server_that_names_ever_other_leaders_is_not_followed_for_long() -> None:
    named = [answer(307, location=f"http://host{number}:1/events") for number in range(100)]
    sent, end = steps(ADD, endpoints(ONE), named)
    assert len(sent) <= 4
    assert isinstance(end, NotLeader)


@pytest.mark.parametrize("location", ["http://host{}:1", ONE], ids=["fresh", "stale"])
def test_a_server_whose_lists_name_ever_other_leaders_is_not_followed_for_long(location: str) -> None:
    def named(number: int) -> Answer:
        members = {f"m{number}": f"host{number}:1"}
        return answer(307, body=listed(f"m{number}", **members), location=f"{location.format(number)}/events")

    sent, end = steps(ADD, endpoints(ONE), map(named, range(100)))
    assert len(sent) <= 4
    assert isinstance(end, NotLeader)


def test_a_list_without_end_is_not_believed_to_its_end() -> None:
    members = {f"m{number}": f"host{number}:1" for number in range(10_000)}
    sent, _ = steps(ADD_IF_ABSENT, endpoints(ONE), [answer(307, body=listed(**members)), *[REFUSED] * 10_000])
    assert len(sent) == 1 + MEMBERS_MOST


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
        "http://two:2/admin?/events",
        "http://two:2/admin#/events",
        "http://two:2?/events",
        "http://two:2/admin/events",
        "http://two:2//events",
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
        "http://host?",
        "http://host/#",
        "http://host\n",
        "http://xn--",
        "http://a.xn--zz:8800",
        ["http://host", "nonsense"],
    ],
)
def test_what_is_no_endpoint_is_refused_at_once(given_endpoints: str | list[str]) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        Topology.parse(given_endpoints)
    assert "secret" not in str(caught.value)


def test_an_endpoint_may_have_a_prefix_and_a_trailing_slash() -> None:
    sent, _ = steps(READ, Topology.parse("http://host/qed/"), [answer(400)])
    assert urls(sent) == ["http://host/qed/snapshots/7"]


def test_a_redirect_may_keep_the_prefix_of_whoever_sends_it() -> None:
    redirect = answer(307, "http://host/qed/events", location="http://two:2/qed/events")
    sent, _ = steps(ADD, Topology.parse("http://host/qed"), [redirect, answer(400)])
    assert urls(sent) == ["http://host/qed/events", "http://two:2/qed/events"]


@pytest.mark.parametrize("address", ["two:2/admin", "two:2?", "two:2/#", "user@two:2", "two:2/"])
def test_an_address_that_is_more_than_host_and_port_is_not_asked(address: str) -> None:
    sent, _ = steps(ADD, endpoints(ONE), [answer(307, body=listed("two", two=address))])
    assert urls(sent) == [ONE + "/events"]


@pytest.mark.parametrize(("base", "host"), [("http://one:1/qed", "one"), ("http://[::1]:1", "[::1]")])
@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]", "[0:0::0]"])  # noqa: S104  # nothing is bound
def test_an_address_of_all_interfaces_is_on_the_host_that_named_it(base: str, host: str, everywhere: str) -> None:
    assert member_url(base, f"{everywhere}:8700") == f"http://{host}:8700"
    assert member_url(base, everywhere) == f"http://{host}"
    assert member_url(base, f"{everywhere}:8700/x") is None
    assert member_url(base, "127.0.0.1:8700") == "http://127.0.0.1:8700"


CUT = Failure(FailureKind.UNANSWERED, "server disconnected")
NO_HANDSHAKE = Failure(FailureKind.UNAVAILABLE, "eof occurred in violation of protocol")
FULL = answer(503, body=b'{"error":"unavailable","message":"all 32 connections are in use"}', retry_after="1")
INFO = dict.fromkeys(("node_id", "raft_addr", "http_addr", "metrics_addr", "version"), "x") | {
    "mgmt_addr": "one:8700",
    "current_version": None,
    "events": 0,
}


def managed(call: Call[object], outcomes: Iterable[Answer | Failure]) -> tuple[list[str], object]:
    """Return where an operator's call was sent while `outcomes` came back from the management address, and its end."""
    sent: list[str] = []
    conversation, coming = administer(call, endpoints(ONE)), iter(outcomes)
    try:
        step = next(conversation)
        while True:
            if step.call.path == "/info":
                step = conversation.send(answer(200, body=json.dumps(INFO).encode()))
                continue
            if step.call.path == "/info/shards":
                step = conversation.send(answer(200, body=listed()))
                continue
            sent.append(step.url)
            step = conversation.send(next(coming))
    except StopIteration as stop:
        return sent, stop.value
    except QedError as exc:
        return sent, exc


def test_an_operator_is_not_kept_out_by_those_who_use_up_the_connections() -> None:
    sent, found = managed(calls.kept_backups(), [CUT, NO_HANDSHAKE, FULL, CUT, answer(200, body=b"[]")])
    assert (sent, found) == (["http://one:8700/backups"] * 5, [])


def test_what_may_not_be_repeated_is_sent_again_only_if_it_was_never_sent() -> None:
    sent, found = managed(calls.create_backup(None, 1), [NO_HANDSHAKE, FULL, CUT])
    assert len(sent) == 3
    assert isinstance(found, Unavailable)
    assert found.may_have_happened


def test_an_operator_learns_that_no_attempt_succeeded() -> None:
    sent, found = managed(calls.kept_backups(), itertools.repeat(NO_HANDSHAKE, 9))
    assert len(sent) == 6
    assert "management address http://one:8700: eof occurred" in str(found)


def test_members_may_be_named_while_another_call_looks_at_them() -> None:
    """Calls share what is known without a lock; here the other call runs wherever the clock is read."""
    shards, coming = SHARDS.decode(listed("one", two="two:2")), list[str]()

    def clock() -> float:
        if coming:
            known.learn(coming.pop(), shards)
        return 0.0

    known = Topology.parse((ONE, TWO, THREE), clock)
    known.learn(ONE, shards)
    known.note_down(ONE)
    coming += [TWO, THREE]
    assert set(known.everyone()) == {ONE, TWO, THREE}


# A simulated cluster: servers that answer according to their role, and a clock that the pauses advance.

MEMBERS = {"one": "one:1", "two": "two:2", "three": "three:3"}
URLS = {name: f"http://{address}" for name, address in MEMBERS.items()}
NO_LEADER = answer(503, body=b'{"error":"no_leader","message":"none"}', retry_after="1")
LEADERSHIP_LOST = answer(503, body=b'{"error":"outcome_unknown","message":"lost"}')


class Simulated:
    """Members, one of which may lead.

    Attributes:
        leader: Name of the leader, or empty.
        down: Members that refuse connections.
        tells: The leader that a member reports, where that is wrong.
        sent: The member that each request went to, and its path.
    """

    def __init__(self, leader: str = "one") -> None:
        self.clock = Clock()
        self.leader = leader
        self.down: set[str] = set()
        self.tells: str | None = None
        self.sent: list[tuple[str, str]] = []
        self.before_each: Callable[[], object] = lambda: None

    def topology(self, *given: str) -> Topology:
        return Topology.parse(given, self.clock)

    def perform(self, call: Call[object], topology: Topology, read: Read = "primary-preferred") -> object:
        """Return how a call ends that may last three time-outs of 10 s."""
        conversation = converse(call, topology, Policy(3, 30.0, read))
        try:
            step = next(conversation)
            while True:
                self.clock.now_s += step.delay_s
                self.before_each()
                step = conversation.send(self.answer(step))
        except StopIteration as stop:
            return stop.value
        except QedError as exc:
            return exc

    def asked(self, path: str) -> list[str]:
        return [base for base, at in self.sent if at == path]

    def answer(self, step: Send) -> Answer | Failure:
        self.sent.append((step.base, step.call.path))
        name = next((name for name, url in URLS.items() if url == step.base), None)
        if name is None or name in self.down:
            return REFUSED
        told = self.leader if self.tells is None else self.tells
        shards = listed(told, name, **MEMBERS)
        if step.call.path == "/info/shards":
            return answer(200, step.url, shards)
        if step.call.route is Route.LEADER and name != self.leader:
            return answer(307, step.url, shards, location=URLS[told] + step.call.path) if told else NO_LEADER
        return answer(418, step.url)


@pytest.fixture
def cluster() -> Simulated:
    return Simulated()


def test_a_single_call_asks_for_no_list_of_members(cluster: Simulated) -> None:
    cluster.perform(ADD, cluster.topology(URLS["two"]))
    assert cluster.sent == [(URLS["two"], "/events"), (URLS["one"], "/events")]


def test_the_second_call_knows_all_members_and_the_leader(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["two"])
    for _ in range(2):
        cluster.perform(READ, topology)
    assert cluster.sent[1:] == [(URLS["two"], "/info/shards"), (URLS["one"], READ.path)]
    assert set(topology.everyone()) == set(URLS.values())


def test_one_living_member_is_enough(cluster: Simulated) -> None:
    cluster.down = {"three"}
    topology = cluster.topology("http://old:1", "http://older:1", URLS["two"])
    assert isinstance(cluster.perform(ADD, topology), ProtocolError)
    assert cluster.asked("/events")[-1] == URLS["one"]


def test_insertions_outlive_the_endpoint_that_was_given(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["two"])
    cluster.perform(ADD, topology)
    cluster.down, cluster.leader = {"two", "one"}, "three"
    cluster.perform(ADD_IF_ABSENT, topology)
    assert cluster.asked("/events")[-1] == URLS["three"]


@pytest.mark.parametrize("call", [ADD, ADD_IF_ABSENT], ids=["once", "if_absent"])
def test_an_insertion_that_was_not_taken_waits_for_the_new_leader(cluster: Simulated, call: Call[object]) -> None:
    cluster.leader, cluster.tells, cluster.down = "", "one", {"one"}

    def elect() -> None:
        cluster.tells = "" if cluster.clock() > 0.5 else "one"
        if cluster.clock() > 2:
            cluster.leader = cluster.tells = "three"

    cluster.before_each = elect
    assert isinstance(cluster.perform(call, cluster.topology(*URLS.values())), ProtocolError)
    assert cluster.asked("/events")[-1] == URLS["three"]
    assert cluster.clock() < 3


def test_without_a_leader_an_insertion_ends_in_time_and_says_who_said_so(cluster: Simulated) -> None:
    cluster.leader = ""
    end = cluster.perform(ADD, cluster.topology(*URLS.values()))
    assert isinstance(end, NotLeader)
    assert all(f"{url}: answered 503: none" in str(end) for url in URLS.values())
    assert 25 < cluster.clock() < 35


def test_a_lost_leadership_is_an_unknown_outcome() -> None:
    sent, end = steps(ADD, endpoints(ONE, TWO), [LEADERSHIP_LOST], attempts=3)
    assert len(sent) == 1
    assert isinstance(end, OutcomeUnknown)
    assert ONE in str(end)
    sent, _ = steps(ADD_IF_ABSENT, endpoints(ONE, TWO), [LEADERSHIP_LOST, answer(400)])
    assert urls(sent) == [ONE + "/events", TWO + "/events"]


def test_what_may_have_happened_is_said_even_if_it_was_tried_again() -> None:
    _, end = steps(ADD_IF_ABSENT, endpoints(ONE), [CUT_OFF, REFUSED], attempts=2)
    assert isinstance(end, Unavailable)
    assert "may have happened" in str(end)


def test_a_leader_out_of_reach_is_looked_for_under_the_given_endpoints(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["two"], URLS["three"], URLS["one"])
    wrong = answer(307, TWO + "/events", listed("one", "two", one="away:9"), location="http://away:9/events")
    conversation = converse(ADD, topology, Policy())
    assert next(conversation).base == URLS["two"]
    assert conversation.send(wrong).base == "http://away:9"
    assert conversation.send(REFUSED).base == URLS["three"]
    assert conversation.send(wrong).base == URLS["one"]
    with pytest.raises(MalformedRequest):
        conversation.send(answer(400))


def test_an_address_out_of_reach_is_named_with_who_named_it() -> None:
    to_nowhere = answer(307, location="http://away:9/events")
    _, end = steps(ADD, endpoints(ONE), [to_nowhere, REFUSED])
    assert isinstance(end, Unavailable)
    assert f"{ONE}: names http://away:9 as the leader; http://away:9: connection refused" in str(end)


def readers(cluster: Simulated, topology: Topology, read: Read, times: int = 6) -> list[str]:
    before = len(cluster.asked(READ.path))
    for _ in range(times):
        cluster.perform(READ, topology, read)
    return cluster.asked(READ.path)[before:]


def test_primary_reads_go_to_the_leader_only(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["two"])
    assert set(readers(cluster, topology, "primary")) == {URLS["one"]}
    cluster.leader, cluster.down = "three", {"one"}
    assert readers(cluster, topology, "primary")[-5:] == [URLS["three"]] * 5


def test_primary_reads_wait_for_a_leader(cluster: Simulated) -> None:
    cluster.leader = ""
    cluster.before_each = lambda: setattr(cluster, "leader", "two" if cluster.clock() > 2 else "")
    assert readers(cluster, cluster.topology(URLS["one"]), "primary", 1) == [URLS["two"]]
    cluster.before_each, cluster.leader = lambda: None, ""
    assert isinstance(cluster.perform(READ, cluster.topology(URLS["one"]), "primary"), NotLeader)


def test_primary_preferred_reads_go_elsewhere_without_the_leader(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["two"])
    assert readers(cluster, topology, "primary-preferred")[1:] == [URLS["one"]] * 5
    cluster.down = {"one"}
    assert isinstance(cluster.perform(READ, topology, "primary-preferred"), ProtocolError)


def test_secondary_reads_go_to_the_others_in_turn(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["one"])
    found = readers(cluster, topology, "secondary")
    assert found in ([URLS["two"], URLS["three"]] * 3, [URLS["three"], URLS["two"]] * 3)
    cluster.down = {"two", "three"}
    assert isinstance(cluster.perform(READ, topology, "secondary"), Unavailable)
    assert URLS["one"] not in cluster.asked(READ.path)


def test_secondary_preferred_reads_go_to_the_leader_last(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["one"])
    assert set(readers(cluster, topology, "secondary-preferred")) == {URLS["two"], URLS["three"]}
    cluster.down = {"two", "three"}
    assert readers(cluster, topology, "secondary-preferred", 1)[-1] == URLS["one"]


def test_any_reads_go_to_all_in_turn(cluster: Simulated) -> None:
    topology = cluster.topology(*URLS.values())
    found = readers(cluster, topology, "any")
    assert {found.count(url) for url in URLS.values()} == {2}


def test_a_cluster_of_one_has_nobody_for_a_secondary_read() -> None:
    only = answer(200, ONE + "/info/shards", listed("one", one="one:1"))
    conversation = converse(READ, endpoints(ONE), Policy(read="secondary"))
    assert next(conversation).url == ONE + "/info/shards"
    with pytest.raises(Unavailable, match=ONE):
        conversation.send(only)


def test_a_dead_member_is_asked_last_for_a_while_and_then_again(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["two"], URLS["three"])
    cluster.down = {"two"}
    readers(cluster, topology, "any", 1)
    cluster.down = set()
    assert topology.everyone()[-1] == URLS["two"]
    cluster.clock.now_s += 60
    assert URLS["two"] in readers(cluster, topology, "any", 3)


def test_new_members_are_heard_of(cluster: Simulated) -> None:
    topology = cluster.topology(URLS["one"])
    conversation = converse(READ, topology, Policy(read="secondary-preferred"))
    next(conversation)
    conversation.send(answer(200, body=listed("one", one="one:1")))
    assert URLS["two"] not in topology.everyone()
    cluster.clock.now_s += 60
    topology.note_answer(URLS["one"])
    readers(cluster, topology, "any", 1)
    assert URLS["two"] in topology.everyone()


def test_members_under_another_scheme_are_not_asked() -> None:
    topology = endpoints("https://one")
    conversation = converse(READ, topology, Policy(read="primary"))
    assert next(conversation).url == "https://one/info/shards"
    with pytest.raises(NotLeader):
        conversation.send(answer(200, "https://one/info/shards", listed("two", one="one:1", two="two:2")))
    assert topology.everyone() == ("https://one",)
