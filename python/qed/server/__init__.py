"""The server: one member of a replicated log, as a process that answers HTTP.

::

    config < frames, waiting, members < greeting < transport, petitions < fetching < node < endpoints < app < main

`connection` and `origin` stand beside them.
"""
