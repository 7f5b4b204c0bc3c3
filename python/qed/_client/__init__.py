"""The two clients and everything only they use: what is sent, to whom, when again, and over which connection.

Import `Client` and `AsyncClient` from `qed`. Nothing below this package is public.
"""
