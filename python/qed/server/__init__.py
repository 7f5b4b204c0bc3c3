"""The server: one member of a replicated log, as a process that answers HTTP.

::

    config < node < endpoints < app < main      connection stands beside them, below main
"""
