"""The server: one member of a replicated log, as a process that answers HTTP.

::

    config, logs < frames, waiting, opening < handshake, members < transport, leader_requests < fetching
           < peers < node < endpoints < app < serving < main

`outgoing`, `connection` and `signals` stand beside them.
"""
