/** What the player's page reads from Supabase: its sessions, and their messages. Calls raise ChatError. */

import type { SupabaseClient } from '@supabase/supabase-js'
import { ChatError } from '../../client/src/errors'
import type { Attachment, Message } from '../../client/src/protocol'
import type { SessionRow } from './rating'

/** Milliseconds after which a request without a response counts as failed. */
export const TIMEOUT = 15_000
/** Messages per request. */
const PAGE = 500
const COLUMNS = 'id, session_id, seq, player_id, player_name, sender, sender_name, message, status, created_at, attachment_ids'

export class History {
  constructor(
    private readonly supabase: SupabaseClient,
    private readonly playerId: number,
  ) {}

  /** The latest sessions, the one that changed last first. */
  sessions(): Promise<(SessionRow & { last_seq: number })[]> {
    return answerOf(
      this.supabase
        .from('gre_chat_sessions')
        .select('id, last_seq, status, cycle, rating')
        .eq('player_id', this.playerId)
        .order('updated_at', { ascending: false })
        .limit(20)
        .abortSignal(AbortSignal.timeout(TIMEOUT)),
    )
  }

  /** The messages of a session after a seq, in order. */
  async messages(session: string, after: number): Promise<Message[]> {
    const found: Message[] = []
    for (let isFull = true; isFull; ) {
      const rows = await answerOf(
        this.supabase
          .from('gre_chat_messages')
          .select(COLUMNS)
          .eq('session_id', session)
          .gt('seq', found.at(-1)?.seq ?? after)
          .order('seq')
          .limit(PAGE)
          .abortSignal(AbortSignal.timeout(TIMEOUT)),
      )
      for (const { attachment_ids, ...row } of rows) {
        // Names and states of the files are read where they are shown.
        const attachments = (attachment_ids as string[] | null)?.map((id) => ({ id }) as Attachment)
        found.push({ ...row, timestamp: row.created_at, ...(attachments?.length && { attachments }) } as Message)
      }
      isFull = rows.length === PAGE
    }
    return found
  }
}

/** The data of an answer. Raises ChatError. */
async function answerOf<T>(request: PromiseLike<{ data: T; error: { code: string; message: string } | null; status: number }>): Promise<NonNullable<T>> {
  const { data, error, status } = await request
  // An answer of something in between may have no data, either.
  if (error || !data) throw new ChatError(error?.code || 'unreachable', error?.message || 'No answer', status < 400 ? 0 : status)
  return data
}
