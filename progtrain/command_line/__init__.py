"""What happens between a typed command and the job: read, check, find a directory, hand over."""
