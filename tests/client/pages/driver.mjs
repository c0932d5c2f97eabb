// What all pages of this suite have: commands on standard input, lines of JSON on standard output. A line `shown` is a
// change of what the page shows: `at` this place, `gone` items are replaced by `fresh` ones.
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

export const env = process.env
export const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)

let now = []

/** Show these messages in place of those that are shown. */
export function render(messages) {
  const next = messages.map(({ id, seq, session_id, message }) => [id, seq, session_id, message])
  const same = (a, b) => a !== undefined && b !== undefined && a.every((value, n) => value === b[n])
  let at = 0
  while (same(now[at], next[at])) at += 1
  let end = 0
  while (end < Math.min(now.length, next.length) - at && same(now.at(-1 - end), next.at(-1 - end))) end += 1
  const gone = now.length - at - end
  const fresh = next.slice(at, next.length - end)
  now = next
  if (gone || fresh.length) say({ shown: { at, gone, fresh } })
}

/** Show one more message, as a page does that appends what it receives. */
export function show({ id, seq, session_id, message }) {
  now = [...now, [id, seq, session_id, message]]
  say({ shown: { at: now.length - 1, gone: 0, fresh: now.slice(-1) } })
}

let token = env.USER_TOKEN
let tokenDelay = 0

/** The person's token, as late as the test says. */
export async function getToken(refused = false) {
  say({ asked: refused })
  if (tokenDelay) await new Promise((resolve) => setTimeout(resolve, tokenDelay))
  return token
}

export const currentToken = () => token

/** A storage that the processes of one folder share, as tabs share localStorage: one file for each name. */
export function folderStorage(folder) {
  mkdirSync(`${folder}/new`, { recursive: true })
  const file = (name) => `${folder}/${encodeURIComponent(name)}`
  const names = () => readdirSync(folder).filter((name) => name !== 'new').sort()
  return {
    get length() {
      return names().length
    },
    key: (index) => (index < names().length ? decodeURIComponent(names()[index]) : null),
    getItem(name) {
      try {
        return readFileSync(file(name), 'utf8')
      } catch {
        return null
      }
    },
    setItem(name, value) {
      const written = `${folder}/new/${process.pid}`
      writeFileSync(written, value)
      renameSync(written, file(name))
    },
    removeItem: (name) => rmSync(file(name), { force: true }),
  }
}

let ahead = 0
const clock = Date.now
Date.now = () => clock() + ahead
globalThis.Date = class extends Date {
  constructor(...parts) {
    super(...(parts.length ? parts : [Date.now()]))
  }
}

/** Sleep as a laptop does: nothing runs, timers do not advance, and the clock is `seconds` ahead afterwards. */
function sleep({ seconds }) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)
  ahead += 1000 * seconds
}

/** Execute the commands of the test until its input ends. */
export async function serve(commands) {
  const all = {
    token(command) {
      token = command.token
    },
    tokenDelay({ seconds }) {
      tokenDelay = 1000 * seconds
    },
    sleep,
    ...commands,
  }
  say({ ready: true })
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    try {
      say({ answer: (await all[command.step](command)) ?? null })
    } catch (error) {
      say({ answer: null, failed: String(error) })
    }
  }
  process.exit(0)
}
