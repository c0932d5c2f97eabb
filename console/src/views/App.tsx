/** The whole page: the sign-in, or the desk of who is signed in. */

import { useCallback, useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Auth } from '../auth'
import { Desk } from '../desk'
import { useChanges } from '../emitter'
import { focused, listen } from '../keys'
import { go, route, sessionHref } from '../route'
import { Banners } from './Banners'
import { ConversationView } from './Conversation'
import { Header } from './Header'
import { HealthView } from './Health'
import { Help } from './Help'
import { QueueView } from './Queue'
import { SignIn } from './SignIn'

export function App({ auth, refused }: { auth: Auth; refused: string | undefined }) {
  const [desk, setDesk] = useState<Desk | undefined>(() => (auth.signedIn ? new Desk(auth) : undefined))
  const [why, setWhy] = useState(refused ?? '')
  const enter = useCallback(() => {
    setWhy('')
    setDesk(new Desk(auth))
  }, [auth])
  // (A layout effect, since the desk below begins in an effect, and may find at once that its token is over.)
  useLayoutEffect(() => {
    auth.onEnded = (text) => {
      setWhy(text)
      setDesk(undefined)
    }
  }, [auth])
  useEffect(() => {
    // A link with another token was opened in this very tab.
    const moved = (): void => {
      const before = auth.token
      const error = auth.takeFromAddress()
      if (error !== undefined) setWhy(error)
      else if (auth.token !== before) enter()
    }
    addEventListener('hashchange', moved)
    return () => removeEventListener('hashchange', moved)
  }, [auth, enter])
  if (!desk) return <SignIn auth={auth} why={why} onEntered={enter} />
  const leave = (): void => {
    auth.signOut()
    setDesk(undefined)
    go('')
  }
  return <DeskView desk={desk} onSignOut={leave} />
}

function DeskView({ desk, onSignOut }: { desk: Desk; onSignOut: () => void }) {
  useChanges(desk)
  const [at, setAt] = useState(route)
  const [helping, setHelping] = useState(false)
  const search = useRef<HTMLInputElement>(null)
  const reply = useRef<HTMLTextAreaElement>(null)
  const session = at.view === 'desk' ? at.session : undefined

  useEffect(() => {
    const moved = (): void => setAt(route())
    const leaving = (event: Event): void => {
      if (!desk.outbox.empty) event.preventDefault()
    }
    addEventListener('hashchange', moved)
    addEventListener('beforeunload', leaving)
    // Waiting times go on while nothing happens.
    const ticking = setInterval(desk.changed, 15_000)
    desk.start()
    return () => {
      removeEventListener('hashchange', moved)
      removeEventListener('beforeunload', leaving)
      clearInterval(ticking)
      desk.stop()
    }
  }, [desk])

  useEffect(() => {
    if (at.view === 'desk') desk.show(at.session)
  }, [desk, at])

  useEffect(
    () =>
      listen({
        step(by) {
          const { view } = desk.queue
          const now = view.findIndex((one) => one.id === desk.open?.id)
          const next = view[now < 0 ? 0 : now + by]
          if (next) go(sessionHref(next.id), true)
        },
        search: () => search.current?.focus(),
        reply: () => reply.current?.focus(),
        help: () => setHelping(true),
        leave() {
          const field = focused()
          if (field && field === search.current && desk.queue.search) desk.queue.show(desk.queue.filter, '')
          else if (field) field.blur()
          else if (location.hash) go('', true)
        },
      }),
    [desk],
  )

  const skip = (event: Event): void => {
    // (The address says what is open; a jump must not change it.)
    event.preventDefault()
    const target = reply.current ?? search.current ?? document.getElementById('main')
    target?.focus()
  }
  const waiting = desk.queue.waiting
  useEffect(() => {
    document.title = waiting ? `(${waiting}) Staff console` : 'Staff console'
  }, [waiting])

  return (
    <div class={`page ${session ? 'has-session' : ''}`}>
      <a class="skip" href="#main" onClick={skip}>Skip to the content</a>
      <Header desk={desk} view={at.view} onSignOut={onSignOut} onHelp={() => setHelping(true)} />
      <Banners desk={desk} />
      {at.view === 'health' ? (
        <HealthView desk={desk} />
      ) : (
        <main class="desk" id="main">
          <h1 class="unseen">Conversations</h1>
          <QueueView desk={desk} searchRef={search} />
          <ConversationView desk={desk} replyRef={reply} />
        </main>
      )}
      <Help open={helping} onClose={() => setHelping(false)} />
      <div class="unseen" aria-live="polite" data-testid="announcer">{desk.announcement}</div>
      {desk.toast !== '' && (
        <div class="toast" role="alert" data-testid="toast" dir="auto">
          <span>{desk.toast}</span>
          <button type="button" class="plain" onClick={() => desk.complain('')} aria-label="Dismiss">×</button>
        </div>
      )}
    </div>
  )
}
