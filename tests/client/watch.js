// In each page of the suite, before its own scripts: each state of the messages that the page shows goes to the test, as the
// change from the one before. A page shows `name: text` for a message, and the text first for what is not sent.
{
  const MESSAGE = /^[^:]*: ((?:mine|staff|player|many) .*)$/s
  const UNSENT = /^(mine \d+) /
  const OLDER = 'Earlier messages'
  const items = () => Array.from(document.querySelectorAll('li'), (item) => item.textContent)
  let now = []
  const look = () => {
    const next = items().flatMap((item) => item.match(MESSAGE)?.[1] ?? [])
    let at = 0
    while (at < now.length && now[at] === next[at]) at += 1
    let end = 0
    while (end < Math.min(now.length, next.length) - at && now.at(-1 - end) === next.at(-1 - end)) end += 1
    const [gone, fresh] = [now.length - at - end, next.slice(at, next.length - end)]
    now = next
    if (gone || fresh.length) suiteSay(JSON.stringify({ shown: { at, gone, fresh } }))
  }
  suiteSay(JSON.stringify({ loaded: true }))
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true })

  let ahead = 0
  const clock = Date.now
  Date.now = () => clock() + ahead
  globalThis.Date = class extends Date {
    constructor(...parts) {
      super(...(parts.length ? parts : [Date.now()]))
    }
  }

  globalThis.suite = {
    unsent: () => items().flatMap((item) => item.match(UNSENT)?.[1] ?? []),
    /** Click the button, once if it is there, and wait for what it loads; return whether there is more. */
    async loadOlder() {
      const button = () => Array.from(document.querySelectorAll('button')).find((each) => each.textContent === OLDER)
      const before = now.length
      button()?.click()
      while (button() && now.length === before) await new Promise((resolve) => setTimeout(resolve, 5))
      return !!button()
    },
    /** The clock goes forward by so many seconds. */
    jump: (seconds) => void (ahead += 1000 * seconds),
    /** Nothing runs for half a second, and no event tells it; afterwards the clock has gone forward. */
    stop(seconds) {
      const end = performance.now() + 500
      while (performance.now() < end);
      ahead += 1000 * seconds
    },
  }
}
