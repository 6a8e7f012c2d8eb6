"""Runs the whole system on one machine.

MiniStack emulates AWS, a private MariaDB is the MySQL server, and ``chalice local`` serves the API.
"""
