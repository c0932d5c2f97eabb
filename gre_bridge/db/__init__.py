"""Every call to the database: the only package that knows the names of tables and functions."""
