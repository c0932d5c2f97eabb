/**
 * The calls of the core, through supabase-js: each path of REST as the function of the database that the daemon calls for it.
 *
 * The core's token goes with each call, whatever token the page's client has: a text is never sent as somebody else.
 */
import type { SupabaseClient } from './types.js';
/** A `fetch` for paths without a host, which calls functions of the database; addresses with a host go to the network. */
export declare function supabaseFetch(supabase: SupabaseClient): (address: string, init: RequestInit) => Promise<Response>;
