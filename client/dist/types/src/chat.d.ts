/** The chat: who the person is, what the frames mean, and the snapshots. */
import type { Chat, ChatOptions } from './api.js';
/** Make a chat. Nothing is connected before the first `subscribe` or `connect`. */
export declare function createChat(options: ChatOptions): Chat;
