/**
 * The default transport: the daemon's /ws (docs/websocket.md), and REST while no socket can be had.
 *
 * It authenticates, reconnects with backoff, and passes frames on without interpreting them, except for those of its own state.
 */
import type { Transport } from './transport.js';
export declare const socketTransport: Transport;
