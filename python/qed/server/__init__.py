"""The server: one member of a replicated log, as a process that answers HTTP.

::

    config < frames < greeting < transport < node < endpoints < app < main

`connection` and `origin` stand beside them.
"""
