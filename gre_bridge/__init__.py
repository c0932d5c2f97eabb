"""gre-bridge: relays every chat message committed in Supabase to Pusher and OneSignal."""

__version__ = "0.1.0"
