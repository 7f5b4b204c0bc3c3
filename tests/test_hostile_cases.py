"""What a dishonest log, witness, server or network can try on a signed log, and the tests of the right answers.

A case counts as tested if each of its tests exists under that name. Tests of the core are named as
`rust/core/tests/tlog/FILE.rs::NAME`. At least one test of each case is of the program: its commands, its servers or its
library.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
RUST: Final = "rust/core/tests/tlog/"


@dataclass(frozen=True)
class Case:
    """Something hostile.

    Attributes:
        what: What is done.
        answer: What the program does then.
        tests: The tests of that.
    """

    what: str
    answer: str
    tests: tuple[str, ...]


def case(what: str, answer: str, *tests: str) -> Case:
    return Case(what, answer, tests)


CASES: Final = {
    1: case(
        "a checkpoint that is older than what was seen",
        "it is stale, no attack: 5, unless another source has a newer one; what was seen stays",
        "test_monitor.py::test_an_older_checkpoint_is_no_attack_by_itself",
        "test_cli_signed.py::test_an_older_receipt_is_ok_and_the_memory_stays",
        "test_memory.py::test_a_memory_goes_only_forward",
    ),
    2: case(
        "another root of a size that was seen",
        "a fork: 1, evidence that convicts the log, and what was seen first stays",
        "test_monitor.py::test_another_root_of_the_same_size_is_a_fork",
        "test_cli_signed.py::test_a_fork_is_reported_and_both_checkpoints_are_kept",
        "test_evidence.py::test_recorded_evidence_convicts",
    ),
    3: case(
        "another history at another size",
        "a fork: 1, evidence of the first entry that differs; without the tiles of one side, a suspicion",
        "test_monitor.py::test_another_history_at_another_size_is_a_fork",
        "test_monitor.py::test_without_the_tiles_of_what_was_seen_it_is_a_suspicion",
        "test_monitor.py::test_two_sources_that_show_two_histories_are_a_fork_at_first_sight",
    ),
    4: case(
        "an old checkpoint with its cosignatures, for days",
        "older than MaxAge is stale: 5",
        "test_hostile_notes.py::test_old_cosignatures_do_not_show_that_an_event_is_absent_today",
        "test_monitor.py::test_cosignatures_that_are_old_or_missing",
        "test_cli_audit.py::test_missing_and_old_cosignatures_are_inconclusive",
    ),
    5: case(
        "a right signature over a checkpoint of another origin",
        "refused: 1; a witness answers 404",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness.py::test_the_key_of_a_known_log_is_not_known_under_another_origin",
        "test_witness_model.py::test_a_key_that_signs_several_logs_needs_each_to_be_listed",
        "test_cli_audit.py::test_what_is_not_signed_by_the_log_is_refused",
    ),
    6: case(
        "fifty signature lines of unknown keys",
        "ignored, and not kept",
        "test_hostile_notes.py::test_what_nobody_knows_counts_for_nothing",
        "test_witness.py::test_lines_of_keys_that_nobody_knows_are_ignored_and_not_kept",
    ),
    7: case(
        "an unknown line whose base64 is not canonical, or has no padding",
        "the note is malformed: 1; a witness answers 400",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness.py::test_what_is_malformed_is_refused",
        RUST + "notes.rs::one_unknown_line_that_is_malformed_spoils_the_note",
    ),
    8: case(
        "the valid line of a known key, twice",
        "refused: 1; a witness answers 403",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness.py::test_only_its_log_signs_a_checkpoint",
        RUST + "notes.rs::a_known_key_signs_once",
    ),
    9: case(
        "an invalid line of a known key, beside a valid one of another",
        "refused: 1; a witness answers 403",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness.py::test_only_its_log_signs_a_checkpoint",
        RUST + "notes.rs::an_invalid_line_of_a_known_key_refuses_the_whole_note",
    ),
    10: case(
        "a known name with another key id, or a known id with another name",
        "ignored: without another line, the log has not signed: 1",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_hostile_notes.py::test_what_nobody_knows_counts_for_nothing",
        RUST + "notes.rs::a_line_is_of_a_key_only_if_both_name_and_id_are",
    ),
    11: case(
        "101 lines, 300 KiB, 64 hashes in a request, an origin of 256 bytes",
        "refused before anything is decoded: 1; a witness answers 400 or 413",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness.py::test_what_is_malformed_is_refused",
        "test_witness.py::test_what_is_too_large_is_refused_before_it_is_read",
        RUST + "limits.rs::limits_hold_before_anything_is_decoded",
    ),
    12: case(
        "CR LF, tabs, zero bytes, a byte order mark, no final line feed, no empty line, sizes such as 007",
        "malformed: 1; a witness answers 400",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness.py::test_what_is_malformed_is_refused",
        RUST + "limits.rs::text_that_is_not_plain_is_malformed",
    ),
    13: case(
        "sizes of 2^63, 2^64 and 10^30",
        "malformed: 1; a witness answers 400",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness.py::test_what_is_malformed_is_refused",
        RUST + "limits.rs::numbers_beyond_63_bits_are_refused_before_arithmetic",
    ),
    14: case(
        "a tree without entries and a root of some; one without entries as the first checkpoint",
        "the former is refused: 1; a witness answers 422. The latter is where a monitor begins",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness.py::test_size_0_has_one_root_and_anything_extends_it",
        "test_monitor.py::test_an_honest_log_is_followed_as_it_grows",
    ),
    15: case(
        "keys with a wrong id, of the wrong kind or length, of small order, or encoded in a second way",
        "the policy is refused with the line: 2",
        "test_hostile_notes.py::test_a_policy_with_a_mistake_is_wrong_usage_and_its_line_is_named",
        RUST + "keys.rs::keys_that_are_not_what_they_say_are_refused",
        RUST + "keys.rs::ed25519_points_of_small_order_and_second_encodings_are_refused",
    ),
    16: case(
        "an attacker's key whose id is that of a trusted one, under its name",
        "the note is refused: 1. That is a nuisance, never trust",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        RUST + "notes.rs::a_colliding_key_id_makes_a_nuisance_and_no_trust",
    ),
    17: case(
        "an Ed25519 signature with S above the order of the group, or R of small order",
        "refused: 1",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        RUST + "keys.rs::signatures_that_not_everybody_accepts_are_refused",
    ),
    18: case(
        "cosignatures at time 0, at 2^63, in an hour, and before the previous one",
        "counts for nothing; refused; counts for nothing; counts. A witness does not sign backwards in time: 503",
        "test_hostile_notes.py::test_a_time_that_cannot_be_true_counts_for_nothing",
        "test_hostile_notes.py::test_a_hostile_checkpoint_is_refused",
        "test_witness_setup.py::test_a_clock_behind_its_last_cosignature_stops_a_witness",
        "test_witness_model.py::test_a_clock_that_goes_back_further_stops_the_witness",
        "test_witness_model.py::test_time_0_is_never_signed",
    ),
    19: case(
        "an ML-DSA-44 line of another cosigner, of another origin, or with a context",
        "it does not verify: 1",
        "test_hostile_notes.py::test_an_ml_dsa_line_is_of_its_cosigner_and_log_without_context",
        RUST + "keys.rs::ml_dsa_signs_the_signer_the_origin_and_an_empty_context",
    ),
    20: case(
        "extension lines, and only an ML-DSA-44 signature, which does not cover them",
        "accepted with a warning; they are not shown",
        "test_hostile_notes.py::test_extension_lines_that_only_ml_dsa_covers_are_warned_of_and_not_shown",
        RUST + "notes.rs::extension_lines_are_given_only_if_the_log_signed_them",
    ),
    21: case(
        "tiles of another length, pages of HTML, redirects",
        "damage: 1; another source is asked",
        "test_hostile_files.py::test_a_tile_that_is_damaged_in_one_place_is_read_from_another",
        "test_cli_audit.py::test_damaged_files_are_damage_and_no_proof",
        "test_cli_audit.py::test_a_hostile_server_is_damage_or_unreachable",
    ),
    22: case(
        "other spellings of the path of a tile",
        "404",
        "test_tiles.py::test_tiles_may_be_kept_and_errors_may_not",
        RUST + "trees.rs::a_path_has_one_spelling",
    ),
    23: case(
        "a partial tile that is not the beginning of the later full one",
        "a fork if both are signed, and damage otherwise: 1",
        "test_hostile_files.py::test_a_partial_tile_and_the_full_one_are_of_one_history",
        RUST + "audits.rs::the_beginning_of_a_full_file_is_the_partial_one",
    ),
    24: case(
        "bundles with an entry beyond the end, a further byte or 257 entries; gzip bombs; gzip that nobody asked for",
        "malformed: 1; stopped at the limit: 1; read",
        "test_hostile_files.py::test_a_bundle_has_its_entries_and_nothing_else",
        "test_cli_audit.py::test_a_hostile_server_is_damage_or_unreachable",
        "test_cli_audit.py::test_an_honest_log_passes_over_http_from_a_server_and_from_a_prefix",
        RUST + "trees.rs::every_byte_of_a_bundle_belongs_to_an_entry",
    ),
    25: case(
        "entries of another version than their index, with unknown flags, of a wrong length, a last one that is none",
        "an invalid entry, with evidence: 1",
        "test_cli_audit.py::test_a_signed_entry_that_is_wrong_is_found",
        "test_monitor.py::test_a_wrong_entry_is_found_when_it_appears",
        RUST + "audits.rs::an_entry_that_is_wrong_by_itself_is_found_without_a_replay",
    ),
    26: case(
        "a wrong hyper root, rightly signed",
        "the replay finds it: 1",
        "test_cli_audit.py::test_a_signed_entry_that_is_wrong_is_found",
        "test_monitor.py::test_a_wrong_entry_is_found_when_it_appears",
        RUST + "audits.rs::a_wrong_root_is_found_by_the_replay",
    ),
    27: case(
        "a repeat that is none, or one that is not marked",
        "the replay finds it: 1",
        "test_cli_audit.py::test_a_signed_entry_that_is_wrong_is_found",
        "test_monitor.py::test_a_wrong_entry_is_found_when_it_appears",
    ),
    28: case(
        "two batches that are published as one",
        "a receipt from between them is not in the log: 1",
        "test_cli_audit.py::test_two_batches_as_one_are_found_with_a_receipt_from_between",
    ),
    29: case(
        "requests to a witness that race from one size to several",
        "one wins, the others get 409 and its size",
        "test_witness.py::test_of_racing_requests_one_wins_and_the_size_never_goes_back",
        "test_signer.py::test_of_two_histories_that_race_one_is_signed",
    ),
    30: case(
        "a forged line of the witness itself in a request",
        "neither kept nor served",
        "test_witness.py::test_a_forged_line_of_the_witness_itself_is_neither_stored_nor_served",
    ),
    31: case(
        "a log with the name of the witness",
        "the witness does not start; no policy may have it: 2",
        "test_witness_setup.py::test_a_log_with_the_name_of_the_witness_is_refused",
        "test_hostile_notes.py::test_a_policy_with_a_mistake_is_wrong_usage_and_its_line_is_named",
    ),
    32: case(
        "a witness that is killed between commit and answer",
        "it remembers what it signed, and the log goes on from there",
        "test_witness.py::test_killed_at_any_moment_a_witness_forgets_nothing_it_has_signed",
        "test_witness_client_runs.py::test_witnesses_that_crash_and_come_back_cosign_again",
    ),
    33: case(
        "a witness that knows a larger size than the log has; one that names the size that was sent",
        "the log accepts no events: 503; one attempt a round",
        "test_witnessed_log.py::test_a_log_that_a_witness_knows_better_accepts_nothing",
        "test_witness_client_runs.py::test_a_log_that_was_rolled_back_is_told_so_with_its_own_signature",
        "test_witness_client.py::test_a_conflict_that_names_the_size_that_was_sent_is_a_conflict",
        "test_witness_client.py::test_a_witness_whose_size_changes_twice_is_given_up_in_this_round_only",
    ),
    34: case(
        "the database of a witness, removed or restored",
        "it does not start with keys that have signed; a restored one heals",
        "test_witness_setup.py::test_without_its_database_a_witness_does_not_start",
        "test_witness_setup.py::test_a_restored_database_makes_conflicts_that_heal",
        "test_witness_client_runs.py::test_a_witness_with_a_restored_database_heals",
    ),
    35: case(
        "the folder of a server, or a backup, from yesterday",
        "it signs nothing, and accepts no events: 503",
        "test_signing.py::test_a_log_that_lost_signed_events_accepts_no_others",
        "test_signing.py::test_a_log_that_has_other_events_than_were_signed_accepts_no_more",
        "test_signing.py::test_the_signed_checkpoint_in_the_folder_counts",
        "test_fork_guard.py::test_a_cluster_that_is_restored_signs_nothing_whoever_leads",
        "test_fork_guard.py::test_a_copy_that_runs_beside_the_log_is_stopped_by_its_witnesses",
        "test_signing_recovery.py::test_a_backup_that_lacks_signed_entries_needs_a_new_name",
        "test_signers_of_servers.py::test_a_server_that_lost_entries_is_refused_by_its_signer",
    ),
    36: case(
        "a leader that was replaced, and goes on",
        "it signs nothing else; its older checkpoint replaces no newer one",
        "test_signing.py::test_a_leader_that_was_replaced_signs_nothing_else_and_brings_nothing_old_back",
        "test_signing.py::test_the_next_leader_signs_the_same_log",
        "test_signing_crash.py::test_a_leader_that_is_killed_at_each_step_signs_one_history",
    ),
    37: case(
        "a signer that is away, slow, or signs something else",
        "the event is acknowledged without a receipt, with the reason",
        "test_signers_of_servers.py::test_a_signer_signs_what_the_server_acknowledges",
        "test_remote_signer.py::test_a_slow_signer_is_given_up",
        "test_remote_signer.py::test_a_command_that_fails_signs_nothing",
    ),
    38: case(
        "a retired key over a larger tree than it may sign",
        "refused: 1",
        "test_hostile_notes.py::test_a_retired_key_counts_up_to_its_size",
        "test_signing.py::test_a_key_is_changed_while_both_sign",
        RUST + "policies.rs::a_retired_key_counts_up_to_its_size",
    ),
    39: case(
        "policies with a key twice, unknown members, a member of two groups, two quorums, CR, a comment behind a line",
        "refused with the line: 2",
        "test_hostile_notes.py::test_a_policy_with_a_mistake_is_wrong_usage_and_its_line_is_named",
        RUST + "policies.rs::a_group_or_quorum_with_a_mistake_is_refused_with_its_line",
    ),
    40: case(
        "a cache with yesterday's checkpoint and today's tiles, or with a 404",
        "stale: 5; another source is asked, and a file that all lack is damage: 1. Errors may not be cached",
        "test_hostile_files.py::test_yesterday_s_checkpoint_with_the_tiles_of_today_is_only_old",
        "test_hostile_files.py::test_a_tile_that_is_damaged_in_one_place_is_read_from_another",
        "test_cli_audit.py::test_a_file_that_is_withheld_is_damage",
        "test_tiles.py::test_tiles_may_be_kept_and_errors_may_not",
    ),
    41: case(
        "a copy or bucket that is ahead of the log, or of another one; two publishers at once",
        "the copy stays, and another history ends in evidence: 1; both publish one log",
        "test_publish.py::test_another_history_is_not_published_and_ends_in_evidence",
        "test_publish.py::test_a_smaller_checkpoint_changes_nothing",
        "test_publish.py::test_a_damaged_file_is_never_published_nor_replaced",
        "test_publish_bucket.py::test_two_publishers_at_once_publish_one_log",
        "test_publish_bucket.py::test_another_log_in_the_bucket_is_refused",
        "test_publish_bucket.py::test_a_bucket_that_is_ahead_stays_so",
        "test_publish_bucket.py::test_a_tampered_tile_is_neither_accepted_nor_replaced",
    ),
    42: case(
        "a state or memory that is smaller, of another log, or missing",
        "verified when it is read: 1; 2; said loudly, or 2 with --must-exist",
        "test_monitor.py::test_a_damaged_state_is_never_started_over",
        "test_monitor.py::test_a_state_is_of_one_log_and_one_process",
        "test_cli_signed.py::test_an_edited_memory_fails_and_one_of_another_log_is_wrong_usage",
        "test_memory.py::test_an_empty_memory_is_no_first_use",
    ),
    43: case(
        "evidence about checkpoints that are consistent, or signed by a key that the policy lacks",
        "not a fork: 1; unknown key: 1",
        "test_evidence.py::test_consistent_checkpoints_are_no_fork",
        "test_evidence.py::test_a_key_that_the_policy_lacks_convicts_nobody",
    ),
    44: case(
        "a webhook that fails, hangs, or redirects into the network",
        "tried again; given up after 10 s; not followed",
        "test_monitor.py::test_what_a_webhook_does_not_take_is_kept_and_tried_again",
        "test_monitor.py::test_a_webhook_that_hangs_has_ten_seconds",
        "test_alerts.py::test_a_webhook_that_drips_has_no_more_time_than_any_other",
        "test_alerts.py::test_a_webhook_that_fails_for_a_day_gets_the_alert_when_it_recovers",
    ),
    45: case(
        "a receipt with the end of another batch",
        "the end is shown as claimed; with the entries, it is refused: 1",
        "test_cli_signed.py::test_a_witnessed_receipt_is_ok",
        "test_cli_audit.py::test_a_receipt_with_the_end_of_another_batch_is_found",
        "test_policy.py::test_a_batch_end_of_another_batch_is_only_claimed_or_refused",
    ),
    46: case(
        "private keys that others can read, in PEM format, encrypted, or of the wrong kind",
        "refused, without a part of them: 2",
        "test_log_key.py::test_the_key_file_is_for_its_owner_only_and_never_replaced",
        "test_log_key.py::test_a_key_in_pem_format_is_refused_encrypted_or_not",
        "test_signing.py::test_an_exposed_key_is_refused",
        "test_signing.py::test_what_cannot_be_used_is_named",
        "test_witness_setup.py::test_keys_that_others_can_read_are_refused",
        "test_witness_setup.py::test_keys_of_a_log_are_refused",
        "test_signer.py::test_keys_of_a_witness_are_refused",
        "test_cli_signed.py::test_no_message_has_a_private_key",
    ),
    47: case(
        "a policy of 10 MB, or without an end",
        "refused after its limit: 2",
        "test_hostile_notes.py::test_a_policy_is_not_read_beyond_its_limit",
        RUST + "trust_files.rs::the_size_of_a_file_is_limited",
    ),
    48: case(
        "a clock that goes back",
        "signatures and cosignatures never do; alerts are told and tried again",
        "test_signing.py::test_the_time_of_a_checkpoint_never_goes_back",
        "test_witness_setup.py::test_a_clock_behind_its_last_cosignature_stops_a_witness",
        "test_alerts.py::test_alerts_do_not_wait_for_a_clock_that_was_ahead",
        "test_alerts.py::test_a_clock_that_goes_back_makes_no_fork",
    ),
    49: case(
        "a store that is slow, full, busy, lies about ETags, ignores conditions, or forgets",
        "an error that says so, and the old checkpoint stays",
        "test_publish_bucket.py::test_a_full_or_busy_store_ends_in_a_typed_error",
        "test_publish_bucket.py::test_a_store_that_does_not_answer_ends_in_a_typed_error",
        "test_publish_bucket.py::test_wrong_etags_end_in_a_typed_error",
        "test_publish_bucket.py::test_a_store_that_ignores_conditions_is_refused",
        "test_publish_bucket.py::test_a_store_that_forgets_what_it_accepts_does_not_get_a_checkpoint",
        "test_publish_bucket.py::test_a_crash_between_any_two_writes_leaves_the_old_checkpoint",
    ),
}


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the tests in a file."""
    text = (ROOT / path).read_text()
    if path.endswith(".rs"):
        return frozenset(re.findall(r"#\[test\]\s+fn (\w+)\(", text))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(each.name for each in ast.parse(text).body if isinstance(each, functions))


@pytest.mark.parametrize("number", CASES)
def test_each_hostile_case_has_its_tests(number: int) -> None:
    found = CASES[number]
    assert found.what
    assert found.answer
    assert any(test.startswith("test_") for test in found.tests), "one is of the program"
    for test in found.tests:
        path, _, name = test.partition("::")
        path = path if path.startswith("rust/") else f"tests/{path}"
        assert name in names_in(path), test


def test_cases_are_numbered_and_no_test_is_named_twice_in_one() -> None:
    assert list(CASES) == list(range(1, len(CASES) + 1))
    for found in CASES.values():
        assert len(set(found.tests)) == len(found.tests)
