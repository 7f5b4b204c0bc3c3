"""A campaign: a cluster of real processes under faults and load, and an audit of everything it acknowledged.

`python -m campaign --minutes 10 --seed 1` in the folder `tests`. All random choices come from the seed. The
interleaving of the processes is not repeatable, so a seed repeats the order of faults, not the whole run.
"""
