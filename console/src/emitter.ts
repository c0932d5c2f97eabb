/** How what is known reaches what is seen: anything that changes says so, and the page is drawn again, once. */

import { useEffect, useState } from 'preact/hooks'

export class Emitter {
  private readonly listeners = new Set<() => void>()

  listen(listener: () => void): () => void {
    this.listeners.add(listener)
    return () => void this.listeners.delete(listener)
  }

  readonly changed = (): void => {
    for (const listener of this.listeners) listener()
  }
}

/** Draw this component again whenever the emitter says that something changed. */
export function useChanges(emitter: Emitter): void {
  const [, draw] = useState(0)
  useEffect(() => emitter.listen(() => draw((n) => n + 1)), [emitter])
}
