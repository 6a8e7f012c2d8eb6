"""Creates links for uploading inventories from a browser, and imports the uploaded inventories into MySQL."""
