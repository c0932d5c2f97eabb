// A page of staff made with the client: the queue, and one session with its messages and notes.
import { commands, openChat } from './chats.mjs'
import { env, folderStorage, getToken, render, serve } from './driver.mjs'

const chat = await openChat(getToken, folderStorage(env.STORAGE))
const open = env.SESSION_ID
const queue = () => chat.staff.queue({ status: 'active' })
const code = (promise) => promise.then(() => 'done', (error) => error.code)

chat.subscribe(() => {
  queue()
  chat.staff.notes(open)
  render(chat.messages(open).messages)
})
await serve({
  ...commands(() => chat),
  send: ({ text }) => void chat.staff.reply(open, text),
  unsent: () => chat.messages(open).unsent.map(({ text }) => text),
  state: () => chat.messages(open).state,
  loadOlder: () => chat.loadOlder(open).then(() => chat.messages(open).hasOlder),
  /** By player: who has the session, whether the player waits, what is unread, the last text. */
  queue: () =>
    Object.fromEntries(
      queue().sessions.map((row) => [
        row.player_id,
        [row.assigned_staff_id, !!row.waiting_since, chat.unread(row.id), row.last_message],
      ]),
    ),
  notes: () => chat.staff.notes(open).notes.map(({ text }) => text),
  note: ({ text }) => void chat.staff.addNote(open, text),
  take: () => code(chat.staff.take(open)),
  transfer: ({ to }) => code(chat.staff.transfer(open, to)),
  close: () => code(chat.closeSession(open)),
  markRead: () => chat.markRead(open),
  files: () => chat.messages(open).messages.flatMap(({ attachments = [] }) => attachments.map(({ state }) => state)),
  viewing: () => chat.staff.viewing(open, true),
  viewers: () => chat.staff.viewers(open),
  templates: () => chat.staff.templates(),
  online: () => chat.staffOnline().map(({ staffId }) => staffId),
})
