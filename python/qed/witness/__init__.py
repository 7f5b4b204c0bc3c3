"""A witness: it cosigns the checkpoints of transparency logs, each only if it extends the one before.

Clients that see cosignatures of one witness see one log, or the witness has lied as well: a log cannot show some of
them another history than the rest.

The protocol is C2SP tlog-witness. Parsing, verifying and signing are in the extension; this package keeps what was
cosigned, and serves.
"""
