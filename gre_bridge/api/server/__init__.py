"""The HTTP server: uvicorn, with limits on what one peer can cost."""
