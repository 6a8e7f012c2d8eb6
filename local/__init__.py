"""Runs the whole system on one machine: MiniStack as AWS, a MariaDB server of its own, ``chalice local`` as the API."""
