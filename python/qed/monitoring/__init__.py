"""Watching logs from outside: reading what they publish, checking all of it, and telling somebody what is wrong."""
