"""Runs the whole system on one machine: MiniStack as AWS, a private MariaDB, and ``chalice local`` as the API."""
