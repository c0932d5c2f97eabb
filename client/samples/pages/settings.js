/** Addresses and public keys of the project, from the bundler's environment (Vite inserts variables that begin with VITE_). */
const { VITE_PUSHER_CLUSTER, VITE_PUSHER_HOST, VITE_PUSHER_PORT } = import.meta.env

export const SUPABASE_URL = import.meta.env.VITE_SUPABASE_URL
export const SUPABASE_ANON_KEY = import.meta.env.VITE_SUPABASE_ANON_KEY
/** Pusher's authorization: the daemon's /api/pusher/auth, or one of the portal's own. */
export const PUSHER_AUTH_URL = import.meta.env.VITE_PUSHER_AUTH_URL
export const PUSHER_KEY = import.meta.env.VITE_PUSHER_KEY
export const PUSHER_OPTIONS = {
  cluster: VITE_PUSHER_CLUSTER,
  enabledTransports: ['ws'],
  disableStats: true,
  // Set for the embedded stack only.
  ...(VITE_PUSHER_HOST && { wsHost: VITE_PUSHER_HOST, wsPort: VITE_PUSHER_PORT, forceTLS: false }),
}
