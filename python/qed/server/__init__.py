"""The server: one member of a replicated log, as a process that answers HTTP.

::

    config < frames, waiting, opening < greeting, members < transport, leader_requests < fetching
           < peers < node < endpoints < app < serving < main

`connection`, `origin`, `refusals` and `signals` stand beside them.
"""
