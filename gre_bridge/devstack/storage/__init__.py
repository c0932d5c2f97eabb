"""Supabase Storage v1.70.6 as the bridge and the portals use it: an ASGI app that is mounted at /storage/v1."""
