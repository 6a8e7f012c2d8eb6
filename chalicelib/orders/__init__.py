"""Orders, from the request over the queue into the table, and from the table to the subscribers."""
