"""The `qed` command: add events, ask for proofs and check them, from a terminal or a script.

One file a group of commands (`events`, `proofs`, `verify`, `topology`, `cluster`, `check`, `completion`), each loaded
only when it is called. `terminal` is the only file that prints.
"""
