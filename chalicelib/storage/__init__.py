"""Creates a storage report with the total size of all S3 buckets in the account."""
