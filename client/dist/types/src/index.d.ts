export type * from './api.js';
export type * from './protocol.js';
export type * from './transport.js';
export { ChatError } from './errors.js';
export { createChat } from './chat.js';
