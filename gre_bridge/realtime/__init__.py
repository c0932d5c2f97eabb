"""The subscription to Supabase Realtime: the source of wake-ups."""
