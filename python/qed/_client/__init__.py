"""The two clients and everything that only they use: requests, the choice of servers, retries and connections.

Import `Client` and `AsyncClient` from `qed`. Nothing in this package is public.
"""
