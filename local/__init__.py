"""Runs the whole system on one machine: MiniStack as AWS, a private MariaDB as MySQL, and ``chalice local`` as the API."""
