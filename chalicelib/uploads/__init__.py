"""Uploads: a link for a browser, and the import of inventories into MySQL. Each module has one job."""
