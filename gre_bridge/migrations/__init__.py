"""The SQL migrations: the files, the runner and the comparison of schemas."""
