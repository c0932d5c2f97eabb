/**
 * How frames travel. The core knows the frames of docs/websocket.md and nothing of what carries them: a transport that is no
 * socket makes the frames from what it receives.
 */

import type { ClientFrame, ServerFrame } from './protocol.js'

export interface Transport {
  /** Open a connection, and keep it: the transport reconnects by itself until `close`. */
  open(host: TransportHost): Link
  /** Makes the calls of REST, instead of the browser's `fetch`. */
  fetch?(url: string, init: RequestInit): Promise<Response>
}

/** The states of a connection that a transport reports. */
export type LinkState = 'connecting' | 'live' | 'polling' | 'reconnecting' | 'offline' | 'stopped'

/** What the core offers to a transport. */
export interface TransportHost {
  /** The daemon's address, without a slash at its end; "" for the page's own origin. */
  readonly url: string
  /** The person's token; `refused` is true if the last one was refused or has expired. Null: nobody is signed in. */
  token(refused: boolean): Promise<string | null>
  /** By session id, the seq up to which every message is here; undefined before anything was read. */
  since(): Record<string, number> | undefined
  /** Hand over a frame. One with `type: 'authenticated'` says who the person is. */
  frame(frame: ServerFrame): void
  /** With `stopped` the transport has ended, and is opened anew when the page wants that. */
  state(state: LinkState, reason?: string): void
  /** Events may have been missed: the core reads sessions and messages again. False: that failed, and will be tried again. */
  missed(): Promise<boolean>
  /** Call the daemon's REST API with the person's token. Raises ChatError. */
  request<T>(method: string, path: string, body?: object): Promise<T>
}

export interface Link {
  /** Send a frame; false if it cannot be sent now, or this transport does not send such frames. Then the core uses REST, where it can. */
  send(frame: ClientFrame): boolean
  close(): void
  /** Something has changed for the better (a person acts, the network is back): end a waiting time, and find out whether the connection lives. Called with each text. */
  wake(): void
}
