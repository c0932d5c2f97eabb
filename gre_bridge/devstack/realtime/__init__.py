"""The stand-in of Supabase Realtime."""
