"""The server: one member of a replicated log, as a process that answers HTTP.

::

    config < frames, waiting, opening < greeting, members < transport, petitions < fetching < node
           < endpoints < app < serving < main

`connection`, `origin`, `refusals` and `signals` stand beside them.
"""
