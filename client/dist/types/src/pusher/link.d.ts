/**
 * The link over Pusher: knows who the person is, keeps its channels subscribed, turns events into frames, and reads what no event
 * has brought.
 *
 * Pusher stores nothing: after each subscription, and from time to time, the core reads. pusher-js reconnects by itself; what it
 * does not do is done here: it asks again after a refused subscription, notices at once that a machine has slept, and comes back
 * after the server has closed its connection.
 */
import type { Link, TransportHost } from '../transport.js';
import type { PusherOptions } from './types.js';
export declare function openLink(host: TransportHost, { pusher, channel, readEvery }: PusherOptions): Link;
