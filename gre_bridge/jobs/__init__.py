"""What a worker does beside relaying: small loops with the same face (`jobs.loop`), one class for each job."""
