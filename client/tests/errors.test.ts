import { expect, test } from 'vitest'

import { ChatError } from '../src/index.js'

test.each([
  ['unreachable', 0, true],
  ['token_expired', 401, true],
  ['too_many_reads', 429, true],
  ['schema_outdated', 503, true],
  ['read_only', 0, true],
  ['session_moved', 409, false],
  ['message_empty', 400, false],
  ['chat_disabled', 403, false],
])('%s with status %i passes: %s', (code, status, transient) => {
  expect(new ChatError(code, 'A line.', status).transient).toBe(transient)
})
