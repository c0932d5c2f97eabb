/**
 * React hooks for the chat (React 18 and 19). They are headless and have no state of their own: each reads a snapshot of
 * the chat and renders again when that snapshot has changed. Safe in StrictMode, on servers, and below Suspense.
 */
export { GreProvider, type GreProviderProps, useChat } from './context.js';
export { type Typing, type UnsentTexts, useChatStatus, useDesk, useMarkRead, useMessages, useSend, useSession, useSessions, useStaffOnline, useTyping, useUnread, useUnsent, } from './conversation.js';
export { type UploadProgress, type Uploads, useFileUrl, useUpload } from './files.js';
export { useNotes, useQueue, useViewers } from './staff.js';
