"""A campaign: a cluster of real processes under faults and load, and an audit of everything it acknowledged.

`python -m campaign --minutes 10 --seed 1` in the folder `tests`. What is drawn at random is drawn from the seed; how
the processes interleave is not repeatable, so a seed repeats the order of faults and not the run.
"""
