"""The stand-in of PostgREST."""
