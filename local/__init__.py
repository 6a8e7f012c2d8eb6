"""Runs the whole system on one machine, with MiniStack as AWS, a private MariaDB, and ``chalice local`` as the API."""
