"""Makes the storage report, which shows the total size of all S3 buckets in the account."""
