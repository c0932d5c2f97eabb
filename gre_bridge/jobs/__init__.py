"""What a worker does beside relaying: small loops with the same face (`run`, `notify`), one class for each job."""
