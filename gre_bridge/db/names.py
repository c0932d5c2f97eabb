"""Names of tables that other packages need: a subscription names its table, a finding names what it found."""

MESSAGES = "gre_chat_messages"
STAFF = "gre_staff"
PUBLICATION = "supabase_realtime"
"""The publication from which Realtime reads row changes."""
