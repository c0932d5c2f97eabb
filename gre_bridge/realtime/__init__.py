"""The subscription to Supabase Realtime."""
