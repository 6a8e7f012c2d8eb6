"""Orders: from the request through the queue to the table, and from the table to the subscribers."""
