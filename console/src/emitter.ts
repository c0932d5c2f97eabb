/** Change notification: the state emits a change, and the components that listen are rendered again. */

import { useLayoutEffect, useState } from 'preact/hooks'

export class Emitter {
  private readonly listeners = new Set<() => void>()

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener)
    return () => void this.listeners.delete(listener)
  }

  readonly emitChange = (): void => {
    for (const listener of this.listeners) listener()
  }
}

/** Render the calling component again after each change that the emitter emits. */
export function useChanges(emitter: Emitter): void {
  const [, setRevision] = useState(0)
  // A layout effect: the effects of a child may change the state.
  useLayoutEffect(() => emitter.subscribe(() => setRevision((n) => n + 1)), [emitter])
}
