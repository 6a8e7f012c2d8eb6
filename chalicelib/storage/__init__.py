"""The storage report, which shows the total size of all buckets in the account."""
