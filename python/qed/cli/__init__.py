"""The `qed` command: add events, ask for proofs and check them, from a terminal or a script.

Each group of commands has a file (`events`, `proofs`, `verify`, `topology`, `cluster`, `check`, `completion`), loaded
only when one of them runs. `terminal` is the only file that prints.
"""
