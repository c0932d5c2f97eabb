"""Supabase Storage: the objects of files in the chat."""
