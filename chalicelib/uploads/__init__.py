"""Links that let a browser upload inventories, and the import of uploaded inventories into MySQL."""
