"""The process that holds the private keys of a log, and signs only what extends what it signed before."""
