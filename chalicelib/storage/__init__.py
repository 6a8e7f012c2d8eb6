"""The storage report: the total size of all the account's buckets."""
