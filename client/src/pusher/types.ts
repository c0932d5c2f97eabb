/** What is used of pusher-js and supabase-js, as types of their own: the page brings the packages. */

// Callbacks of packages take anything.
type Callback = (data: any) => void

/** A part of pusher-js's `Channel`. */
export interface PusherChannel {
  readonly subscribed: boolean
  bind(event: string, callback: Callback): unknown
  unbind(event?: string, callback?: Callback): unknown
}

/** A part of pusher-js's `Pusher`. */
export interface PusherClient {
  readonly connection: {
    readonly state: string
    bind(event: string, callback: Callback): unknown
    unbind(event?: string, callback?: Callback): unknown
  }
  channel(name: string): PusherChannel | undefined
  subscribe(name: string): PusherChannel
  unsubscribe(name: string): void
  connect(): void
  disconnect(): void
  send_event(name: string, data: any): boolean
}

/** A part of supabase-js's `SupabaseClient`, with whatever types of a database. */
export interface SupabaseClient {
  rpc(name: never, args?: never): unknown
}

/** A call of supabase-js. */
export interface SupabaseCall extends PromiseLike<SupabaseAnswer> {
  setHeader(name: string, value: string): SupabaseCall
  abortSignal(signal: AbortSignal): SupabaseCall
}

export interface SupabaseAnswer {
  data: unknown
  error: { code: string; message: string; hint?: string | null; details?: string | null } | null
  /** Of HTTP; 0 without an answer. */
  status: number
}

export interface PusherOptions {
  /** The page's pusher-js object. It has to authorize private channels with the token that `getToken` returns. */
  pusher: PusherClient
  /** The page's supabase-js client, for a chat with the `url` "": then calls go to the database, and none to the daemon. */
  supabase?: SupabaseClient
  /** The channels; by default a player's `private-player-{id}`, and staff's `private-staff-portal` and `staff-portal`. */
  channel?: string | readonly string[]
  /**
   * Milliseconds between two reads while the connection is live, by default 60,000; 0: none. They bring what no event announces,
   * such as a player's messages of another device. Hidden pages do not read.
   */
  readEvery?: number
}
