"""The embedded stack of `gre-bridge dev`: a stand-in for Supabase, Pusher and OneSignal. Never used in production."""
