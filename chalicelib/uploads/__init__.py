"""Uploads: links that let a browser upload inventories, and the import of inventories into MySQL."""
