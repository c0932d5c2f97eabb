/** A view whose code is loaded when it is opened. */

import type { ComponentType } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { Desk } from '../desk'

export interface ViewProps {
  desk: Desk
  /** What follows the view's name in the address. */
  parameters: string
}

export function LoadedView({ load, ...props }: ViewProps & { load: () => Promise<ComponentType<ViewProps>> }) {
  const [found, setFound] = useState<{ View?: ComponentType<ViewProps>; failed?: true }>({})
  useEffect(() => {
    let unmounted = false
    const show = (next: typeof found): void => {
      if (!unmounted) setFound(next)
    }
    load().then((View) => show({ View }), () => show({ failed: true }))
    return () => {
      unmounted = true
    }
  }, [load])
  if (found.View) return <found.View {...props} />
  return (
    <main class="health" id="main" tabIndex={-1} aria-busy={!found.failed}>
      {!found.failed && <p class="empty" role="status">Loading …</p>}
      {found.failed && (
        <div class="empty" role="alert" data-testid="view-failed">
          <p>This page could not be loaded. If the server was updated meanwhile, a reload helps; drafts are kept.</p>
          <button type="button" onClick={() => location.reload()}>Reload</button>
        </div>
      )}
    </main>
  )
}
